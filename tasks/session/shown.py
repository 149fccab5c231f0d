"""What people look at in MLflow of a stage and of a whole climb, shown once it is logged.

It never waits for a stage's, and nothing measured rests on it (see `leastwise.record.review`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.answering.workspace import Workspace
from leastwise.record.review.background import attempt
from leastwise.record.review.showing import Showing
from leastwise.record.stage_run import StageRun
from leastwise.rows.gate_rows import seeded

if TYPE_CHECKING:
    import pandas as pd

SHOWN_TABLES = ("gate", "test", "out_of_scope")


def show_stage(work: Workspace, run: StageRun) -> None:
    """Queue the examples of a stage that was measured or linked; comes back at once."""
    Showing(work.use_case).stage(run)


def show_rest(work: Workspace) -> None:
    """Show what of this climb or upkeep run is not shown yet, and the tables it was judged on; waits for it."""
    Showing(work.use_case).climb(work.run, attempt("the tables", lambda: _tables(work)) or {})


def _tables(work: Workspace) -> dict[str, pd.DataFrame]:
    tables = {name: rows for name in SHOWN_TABLES if (rows := work.tables.get(name)) is not None}
    return {name: seeded(rows) for name, rows in tables.items()}
