"""Which runs hold a verdict: of a stage, a climb with all under it, or a whole use case; and which are not finished. It
judges none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.record.client import every_run, find_experiment, shown_uri
from leastwise.record.climb_run import USE_CASE_FILE, ClimbRun
from leastwise.record.run import CLIMB_KEY, FINISHED, KIND, OUTCOME, QUESTION, RecordedRun, is_tag, read_run
from leastwise.record.stage_run import StageRun
from leastwise.use_case import LADDER, UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient

KINDS = frozenset({"stage", "try", "reference"})
OLDEST_FIRST = ("attributes.start_time ASC",)


def judged_runs(client: MlflowClient, run_or_experiment: str) -> Iterator[StageRun]:
    """The runs with a verdict of one run, a climb, or a whole experiment (a use case's name), oldest first.

    BadInput where the name is neither.
    """
    where = find_experiment(client, run_or_experiment)
    if where is not None:
        everything = every_run(client, where, order_by=OLDEST_FIRST)
        yield from filter(_is_judged, (StageRun(client, run) for run in everything))
        return
    yield from _of_run(client, run_or_experiment)


def ended_climbs(client: MlflowClient, run_or_experiment: str) -> Iterator[ClimbRun]:
    """The climbs that have ended among what `judged_runs` means, oldest first."""
    where = find_experiment(client, run_or_experiment)
    if where is None:
        runs = [ClimbRun.read(client, run_or_experiment).run]
    else:
        runs = list(every_run(client, where, is_tag(KIND, "ladder"), OLDEST_FIRST))
    climbs = (ClimbRun(client, run) for run in runs)
    yield from (climb for climb in climbs if climb.kind == "ladder" and climb.tag(OUTCOME))


def _of_run(client: MlflowClient, run_id: str) -> Iterator[StageRun]:
    from mlflow.exceptions import MlflowException

    try:
        run = StageRun.read(client, run_id)
    except MlflowException:
        what = f"{run_id} is neither a run id nor an experiment in {shown_uri()}"
        raise BadInput(
            f"run_or_experiment: {what}; take the mlflow_run_id a flow printed, or a use case's name"
        ) from None
    if _is_judged(run):
        yield run
    for child in run.children():
        yield from _of_run(client, child.info.run_id)


def _is_judged(run: StageRun) -> bool:
    return run.kind in KINDS and run.is_judged


def unfinished_use_cases(client: MlflowClient, name: str, kind: str) -> Iterator[UseCase]:
    """The use case of every run of a kind (a climb: `ladder`) that can be taken up again, as it was asked, newest
    first.
    """
    where = find_experiment(client, name)
    if where is None:
        return
    query, newest_first = f"{is_tag(KIND, kind)} and attributes.status != '{FINISHED}'", ["attributes.start_time DESC"]
    for run in client.search_runs([where], query, order_by=newest_first):
        begun = ClimbRun(client, run)
        if begun.has_file(USE_CASE_FILE):
            yield begun.use_case()


def use_case_above(run: RecordedRun) -> UseCase:
    """The use case of the climb or upkeep run above, as it was logged when that started."""
    above = run
    while parent := above.parent_id:
        above = RecordedRun.read(run.client, parent)
    return ClimbRun(above.client, above.run).use_case()


def question_above(run: RecordedRun) -> str:
    """The question the climb or upkeep run above drew alpha for; empty where that was not written down."""
    above = run
    while parent := above.parent_id:
        above = RecordedRun.read(run.client, parent)
    return above.tag(QUESTION) or above.tag(CLIMB_KEY)


def measured_run(client: MlflowClient, use_case: str, run_id: str) -> StageRun:
    """The run that measured a candidate: the run itself, the winner of a climb, or what a gate judged.

    BadInput where there is no such run in the use case's experiment, or the climb has no winner.
    """
    run = read_run(client, run_id)
    if run.experiment_id != find_experiment(client, use_case):
        raise BadInput(f"mlflow_run_id: run {run_id} is not in the experiment {use_case}; name a run of that use case")
    if run.kind == "gate":
        judged = ClimbRun(client, run.run).stage_runs()
        return judged[-1] if judged else StageRun(client, run.run)
    if run.kind != "ladder":
        return StageRun(client, run.run)
    climb, outcome = ClimbRun(client, run.run), run.tag(OUTCOME) or "not finished"
    winner = climb.reference_run() if outcome == "reference" else None
    if winner is None and outcome not in LADDER:
        raise BadInput(f"mlflow_run_id: the climb {run_id} ended as {outcome}, so it has no winner to promote")
    return winner or climb.latest(outcome)
