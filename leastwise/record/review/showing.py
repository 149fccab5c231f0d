"""What of a climb stands in MLflow's own pages: its stages' examples as traces, prompts, models, data sets, views.

All of it is made of what is logged, in the background while nothing is timed, and what a kill left out is made up for
at the end of the climb or of the next one. Only judged runs that measured themselves make traces: a run that repeats
another's record is linked to them. No verdict waits for it or rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from leastwise.ladder.candidate import Candidate
from leastwise.metrics.task_metric import is_right_or_wrong
from leastwise.record.climb_run import ClimbRun
from leastwise.record.review.background import attempt, go_on, later, wait
from leastwise.record.review.data_sets import show_table
from leastwise.record.review.prompts import show_prompt
from leastwise.record.review.traces import Origin, Row, examples_of, link, write
from leastwise.record.review.views import make_views
from leastwise.record.run import CANDIDATE, JUDGE, MODEL_ID, REUSED_FROM, TRACES, RecordedRun
from leastwise.record.stage_run import EXAMPLES, StageRun
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

KINDS = ("stage", "try", "reference")


@dataclass(frozen=True)
class Showing:
    """Shows runs of one use case."""

    use_case: UseCase

    def stage(self, run: StageRun) -> None:
        """Queue what is to be shown of a stage and of its tries; comes back at once."""
        later("the saved views", lambda: self._make_views(run))
        later(f"the examples of {run.name}", lambda: self._show_with_tries(run))

    def climb(self, climb: ClimbRun, tables: Mapping[str, pd.DataFrame]) -> None:
        """Show what of a climb (or an upkeep run) is not shown yet, and these tables, each in its seeded order; waits
        until all is there or was left.
        """
        later("the saved views", lambda: self._make_views(climb))
        for name, rows in tables.items():
            later(f"the table {name}", lambda name=name, rows=rows: self._show_table(climb, name, rows))  # type: ignore[misc]  # bound now
        later("the examples of this climb", lambda: self._show_stages(climb))
        wait()

    def now(self, run: StageRun) -> None:
        """Show the examples of one judged run before this comes back; raises what MLflow refuses."""
        self._show(run.origin)

    def _make_views(self, run: RecordedRun) -> None:
        make_views(run.client, run.experiment_id, tuple(self.use_case.requirements.bounds))

    def _show_table(self, run: RecordedRun, name: str, rows: pd.DataFrame) -> None:
        show_table(run, self.use_case.name, name, rows)

    def _show_stages(self, climb: ClimbRun) -> None:
        for run in _judged(climb.client, climb.children()):
            self._show_with_tries(run)

    def _show_with_tries(self, run: StageRun) -> None:
        """A stage, and those of its tries that it does not stand for itself."""
        run = run.again()
        if not run.is_judged:
            return
        reusing, run = run, run.origin
        self._show(run)
        if reusing.tag(REUSED_FROM):
            _take_model(reusing)
            self._share_traces(run, reusing)
        for each in _judged(run.client, run.children()):
            if each.tag(CANDIDATE) != run.tag(CANDIDATE):
                self._show(each)

    def _show(self, run: StageRun) -> None:
        if run.tag(TRACES) or not run.has_file(EXAMPLES):
            return
        candidate = run.candidate()
        _take_model(run)
        prompt = attempt(f"the prompt of {run.name}", lambda: show_prompt(run, self.use_case, candidate))
        examples = examples_of(self._origin(run, candidate, prompt), rows_of(run))
        write(run.client, examples, go_on)
        run.write(tags={TRACES: str(len(examples))})

    def _share_traces(self, origin: StageRun, reusing: StageRun) -> None:
        """The traces of a run at the pages of one that repeats its record too."""
        if reusing.tag(TRACES) or not origin.again().tag(TRACES):
            return
        examples = examples_of(self._origin(origin, origin.candidate(), None), rows_of(origin))
        link(reusing.client, examples, reusing.id)
        reusing.write(tags={TRACES: str(len(examples))})

    def _origin(self, run: StageRun, candidate: Candidate, prompt: tuple[str, str] | None) -> Origin:
        return Origin(
            experiment_id=run.experiment_id,
            run_id=run.id,
            started_ms=int(run.run.info.start_time),
            stage=str(run.stage),
            model_id=run.tag(MODEL_ID),
            model=candidate.model,
            judge=run.tag(JUDGE).partition(" ")[0] if self.use_case.is_graded else "",
            is_pass_fail=is_right_or_wrong(self.use_case.task),
            prompt=prompt,
        )


def rows_of(run: StageRun) -> list[Row]:
    """The table of examples of a run that measured itself, a mapping a row, in the order in which they were asked."""
    table = cast("dict[str, list[list[object]]]", run.read_json(EXAMPLES))
    columns = cast("list[str]", table["columns"])
    return [dict(zip(columns, row, strict=True)) for row in table["data"]]


def _judged(client: MlflowClient, runs: Iterable[Run]) -> Iterator[StageRun]:
    for each in (StageRun(client, run) for run in runs):
        if each.kind in KINDS and each.is_judged:
            yield each


def _take_model(run: StageRun) -> None:
    """The candidate's model as an input of its run: with an output MLflow takes it for a training and hides it."""
    from mlflow.entities import LoggedModelInput

    model_id = run.tag(MODEL_ID)
    taken = {each.model_id for each in run.run.inputs.model_inputs} if run.run.inputs else set()
    if model_id and model_id not in taken:
        run.client.log_inputs(run.id, models=[LoggedModelInput(model_id)])
