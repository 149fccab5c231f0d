"""Has the traffic drifted from the rows the champion was judged on? It changes nothing: drift alarms.

Drift is looked for in embeddings only (no labels, no repetition), one window at a time: of windows in which nothing
changed a share of alpha alarms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.evidence.drift import LEAST_ROWS, drift_test
from leastwise.ladder.ending import UpkeepEnding
from leastwise.models.encoder import embed, embedder_dir
from leastwise.record.client import connect
from leastwise.record.run import WINDOW
from leastwise.record.upkeep_run import open_upkeep
from leastwise.rows import tables
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from leastwise.stores.tables.drawn_rows import Outline, at_positions
from leastwise.use_case import UseCase
from tasks.session.console import say_ending

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 400
MOST_WINDOW_CHARACTERS = 500


@task(name="drift")
def watch_drift(use_case: str, window: str) -> UpkeepEnding:
    """Compare a window of recent inputs with the rows the champion was judged on (dev and gate): quiet, or drift."""
    case, client = load(use_case), connect()
    encoder = _encoder(case)
    reference = _reference(Tables(case))
    parts = table_files.parts_of(window)  # an endpoint's log may grow while it is read
    unit = _unit(case, next(read_window(case, window, parts)), reference)
    recent = Outline.of(read_window(case, window, parts), unit)
    seed, drawn = recent.seed, at_positions(read_window(case, window, parts), recent.drawn(MOST_ROWS))
    samples = [independent(reference, unit), drawn]
    _check_size(samples[1], window, unit)
    vectors = [embed(list(rows["text"]), encoder, cache=storage.home() / "embeddings") for rows in samples]
    result = drift_test(vectors[0], vectors[1], alpha=case.alpha, seed=seed)
    tags = {WINDOW: window[:MOST_WINDOW_CHARACTERS]}
    run = open_upkeep(client, case, "drift", content_key(window, str(seed)), tags)
    figures = {
        "drift.p_mmd": result.p_mmd,
        "drift.p_domain": result.p_domain,
        "drift.mmd": result.mmd,
        "drift.auc": result.auc,
        "drift.alpha": case.alpha,
        "drift.rows.reference": float(len(samples[0])),
        "drift.rows.window": float(len(samples[1])),
    }
    counted = f"one row of each {unit}" if unit else "rows taken as independent"
    reason = f"{result.reason}; {len(samples[1])} of {len(recent.texts)} window rows, {counted}"
    return say_ending("drift", run.end("drift" if result.drifted else "quiet", reason, 0.0, 0, figures))


def read_window(use_case: UseCase, uri: str, parts: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """Recent inputs a block at a time, masked as all text of the use case is; BadInput for missing or empty text."""
    return tables.window(uri, use_case.data, f"window ({uri})", parts)


def independent(rows: pd.DataFrame, unit: str | None, most: int = MOST_ROWS) -> pd.DataFrame:
    """At most `most` distinct texts in the order that their content seeds, one of each unit: sentences of one source
    are near-copies, and a window from other sources would alarm though nothing changed. A row without a unit is a unit
    of its own. The seed is of each sample alone, so that every window meets the same reference rows, embedded once.
    """
    return rows.iloc[Outline.of([rows], unit).drawn(most)]


def _check_size(rows: pd.DataFrame, window: str, unit: str | None) -> None:
    if len(rows) < LEAST_ROWS:
        of = f", one of each {unit}" if unit else ""
        raise BadInput(
            f"window ({window}): {len(rows)} distinct texts{of}, at least {LEAST_ROWS} are needed; take a longer window"
        )


def _unit(use_case: UseCase, *samples: pd.DataFrame) -> str | None:
    column = use_case.data.unit_by or use_case.data.split_by
    return column if column and all(column in rows for rows in samples) else None


def _reference(case_tables: Tables) -> pd.DataFrame:
    import pandas as pd

    dev = case_tables.get("dev")
    return pd.concat([*([] if dev is None else [dev]), case_tables.need("gate")], ignore_index=True)


def _encoder(use_case: UseCase) -> Path:
    if not use_case.models.embedder:
        raise BadInput(f"models.embedder: is not set in {use_case.name}; drift is looked for in embeddings, name one")
    return embedder_dir(use_case.models.embedder)
