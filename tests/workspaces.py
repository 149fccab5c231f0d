"""Workspaces to test on: an open climb of a use case written to a folder, and stages logged in it that nobody
measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from leastwise.answering.workspace import Workspace
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import Evaluation, judge
from leastwise.ladder.measured import Measured
from leastwise.record.stage_run import StageRun
from tasks.climb import open_climb
from tasks.session.workspace import open_workspace

NO_SEARCH = {"search": {"rows": 0}}  # a stage tries what it is told to: what is searched for has tests of its own


def case_file(folder: Path, case: Mapping[str, Any]) -> str:
    """The use case as a file; its tables lie beside it."""
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(NO_SEARCH | dict(case)))
    return str(path)


def state_in(folder: Path, empty_tracking: Path) -> str:
    """A state directory whose MLflow database is there already: making one takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_tracking, folder / "mlflow.db")
    return str(folder)


@contextmanager
def home_with_triage(folder: Path, triage_data: Path, empty_tracking: Path) -> Iterator[Path]:
    """A state directory of several tests, with the data of the shipped use case and no tracking server."""
    shutil.copytree(triage_data, folder / "data" / "alert-triage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", state_in(folder, empty_tracking))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


def opened(path: str | Path) -> Workspace:
    """An open climb of a use case's file."""
    return open_workspace(open_climb.fn(str(path)))


def quality(lower: float, upper: float, n: int = 50, margin: float = 0.2) -> Measurement:
    """A measured quality whose bound is 0.8."""
    return Measurement(
        name="quality",
        estimate=(lower + upper) / 2,
        lower=lower,
        upper=upper,
        n=n,
        bound=0.8,
        margin=margin,
        alpha_pass=0.01,
        alpha_fail=0.05,
    )


def evaluation_of(stage: str, measured: Measurement, candidate: str = "c") -> Evaluation:
    """An evaluation of quality alone."""
    return Evaluation(stage=stage, candidate=candidate, gate_hash="g", measurements={measured.name: measured})


def log_stage(
    work: Workspace,
    candidate: Candidate,
    measured: Measurement,
    totals: Mapping[str, float] | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    tags: Mapping[str, str] | None = None,
    bundle: Path | None = None,
) -> StageRun:
    """A finished stage run of this candidate, with these gate rows as its table of examples, and what it answers with
    as a stage leaves it.
    """
    run = work.run.open_stage(candidate.stage, f"key-{candidate.stage}")
    evaluation = evaluation_of(candidate.stage, measured, candidate.key)
    run.log_candidate(candidate, work.use_case, bundle)
    run.log_evaluation(evaluation, dict(totals or {}))
    run.log_examples(Measured(evaluation, {}, rows=rows))  # type: ignore[arg-type]
    verdict = judge(evaluation, work.use_case.gate_requirements)
    run.log_verdict(candidate.stage, verdict, dict(tags or {}), "")
    run.close()
    return run.again()
