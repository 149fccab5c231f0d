"""A climb's run in MLflow and the runs under it: opened or resumed, its stages, its history, how it ended.

What one stage's run holds is in `leastwise.record.stage_run`. An upkeep run that measures (a retraining, a rebaseline)
is read the same way: it holds `use_case.json` as a climb does.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psutil

from leastwise.ladder import Evaluation, Record, best, teacher
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import ClimbEnding
from leastwise.record.client import experiment_id, leave, take_up
from leastwise.record.handover.tables import brought, handed_over
from leastwise.record.run import (
    CLIMB_KEY,
    CONFIRMED,
    FAILED,
    FINISHED,
    KEY,
    KIND,
    NOT_LINKED,
    NOTE,
    OUTCOME,
    OVERRIDE,
    PAID,
    PARENT,
    REASON,
    RESOLUTION,
    REUSED_CALLS,
    REUSED_FROM,
    RUN_NAME,
    RUNNING,
    SPENT,
    STAGE,
    SURE,
    USE_CASE,
    VENUE,
    VERDICT,
    Calls,
    Figure,
    RecordedRun,
    is_status,
    is_tag,
)
from leastwise.record.stage_run import CANDIDATE_FILE, SKIPPED, StageRun
from leastwise.run_id import RunId
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    from mlflow import MlflowClient

USE_CASE_FILE = "use_case.json"
HALTED = ("error", "budget", "rejected")  # outcomes that leave a climb resumable


class ClimbRun(RecordedRun):
    """One parent run and what hangs under it."""

    def use_case(self) -> UseCase:
        """The use case as it was when the climb started, overrides included."""
        return brought(self.client, UseCase.model_validate(self.read_json(USE_CASE_FILE)))

    # -- its stages ---------------------------------------------------------------------------------------------------

    def stage_runs(self) -> list[StageRun]:
        """The finished stage runs, oldest first, but for those that have to be asked anew: what an outage decided, and
        a skip before a stage below it was measured.
        """
        runs = [run for run in self._under("stage") if run.is_finished and run.is_whole]
        return [run for at, run in enumerate(runs) if not _is_stale(run, runs[at + 1 :])]

    def reference_run(self) -> StageRun | None:
        """Row 0, once it is logged."""
        query = f"{is_tag(PARENT, self.id)} and {is_tag(KIND, 'reference')}"
        runs = (StageRun(self.client, run) for run in self.client.search_runs([self.experiment_id], query))
        return next((run for run in runs if run.is_finished), None)

    def latest(self, stage: str) -> StageRun:
        """The last run of a stage, finished or not; RuntimeError where there is none."""
        query = f"{is_tag(PARENT, self.id)} and {is_tag(KIND, 'stage')} and {is_tag(STAGE, stage)}"
        runs = self.client.search_runs([self.experiment_id], query, max_results=1, order_by=["start_time DESC"])
        if not runs:
            raise RuntimeError(f"climb {self.id} has no run of the stage {stage}")
        return StageRun(self.client, runs[0])

    def stage(self, run_id: str) -> StageRun:
        """A run under this climb by its id."""
        return StageRun.read(self.client, run_id)

    def _under(self, kind: str) -> list[StageRun]:
        query = f"{is_tag(PARENT, self.id)} and {is_tag(KIND, kind)}"
        runs = self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time ASC"])
        return [StageRun(self.client, run) for run in runs]

    def open_stage(self, stage: str, key: str, under: RunId | None = None) -> StageRun:
        """The run of a stage, or of a try `under` its stage: the unfinished one of the same key, or a new one.

        A try may be finished already, where a kill came before its stage was.
        """
        parent, begun = under or self.id, f"attributes.status != '{FAILED}'" if under else is_status(RUNNING)
        query = f"{is_tag(PARENT, parent)} and {is_tag(KEY, key)} and {begun}"
        unfinished = self.client.search_runs([self.experiment_id], query, max_results=1)
        if unfinished:
            return StageRun(self.client, unfinished[0])
        tags = {KIND: "try" if under else "stage", STAGE: stage, KEY: key, PARENT: parent}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{stage} · running")
        return StageRun(self.client, run)

    def finished(self, *keys: str, kind: str = "stage") -> StageRun | None:
        """A finished, error-free run of a stage or reference, from whichever climb, with the first key that has one."""
        ended, newest_first = f"{is_tag(KIND, kind)} and {is_status(FINISHED)}", ["attributes.start_time DESC"]
        search = partial(self.client.search_runs, [self.experiment_id], max_results=5, order_by=newest_first)
        found = (run for key in dict.fromkeys(keys) for run in search(f"{is_tag(KEY, key)} and {ended}"))
        runs = (StageRun(self.client, run) for run in found)
        return next((run for run in runs if run.is_evidence and run.is_whole), None)

    def link(self, done: StageRun) -> StageRun:
        """A stage run under this climb that carries a finished one's record and links to it: nothing is paid twice."""
        own = {KIND: done.kind, PARENT: self.id, REUSED_FROM: done.origin.id}
        query = f"{is_tag(PARENT, self.id)} and {is_tag(REUSED_FROM, own[REUSED_FROM])} and {is_status(RUNNING)}"
        begun = self.client.search_runs([self.experiment_id], query, max_results=1)
        name = f"{done.origin.name} · reused"
        linked = StageRun(
            self.client, begun[0] if begun else self.client.create_run(self.experiment_id, tags=own, run_name=name)
        )
        tags = {name: value for name, value in done.tags("").items() if name not in NOT_LINKED}
        figures = {**done.figures, SPENT: 0.0, PAID: 0.0}
        linked.log_text(json.dumps(done.read_json(CANDIDATE_FILE), indent=2), CANDIDATE_FILE)
        linked.write(figures, tags | own)
        linked.close()
        return linked.again()

    def log_skip(self, stage: Stage, reason: str) -> None:
        """A skipped stage with its reason: one run, unless a stage below it was measured since it was skipped."""
        runs = self._under("stage")
        ours = (at for at, run in enumerate(runs) if (run.stage, run.verdict) == (stage, SKIPPED))
        skipped = next((runs[at] for at in ours if not _is_stale(runs[at], runs[at + 1 :])), None)
        tags = {KIND: "stage", STAGE: stage, VERDICT: SKIPPED, REASON: reason, PARENT: self.id}
        tags[RUN_NAME] = f"{LADDER.index(stage) + 1} {stage} · SKIPPED {reason[:120]}"
        tags[NOTE] = f"**Skipped**: {reason}"
        run = skipped or StageRun(self.client, self.client.create_run(self.experiment_id, tags=tags))
        if skipped:
            run.write(tags=tags)
        run.close()

    def reconsider_skips(self) -> None:
        """Take the skips out of the history: why a stage was skipped (an approval) may have changed since."""
        for run in self.stage_runs():
            if run.verdict == SKIPPED:
                run.close(FAILED)

    def log_reference(
        self, evaluation: Evaluation, note: str, quality: Mapping[str, float], is_whole: bool = True
    ) -> StageRun:
        """Row 0 as a run of its own, with no verdict: it is reported, not judged. `quality` by name of the
        reference. Not `is_whole`: who writes more closes it.
        """
        tags = {KIND: "reference", STAGE: "reference", PARENT: self.id, VENUE: "none", NOTE: note}
        measured = evaluation.measurements.get("quality")
        figure = f"quality {measured.estimate:.2f}" if measured else evaluation.candidate
        name = f"0 reference · {evaluation.candidate} {figure}"
        run = StageRun(self.client, self.client.create_run(self.experiment_id, tags=tags, run_name=name))
        run.log_evaluation(evaluation, {f"reference.{re.sub('[^a-z]+', '_', each)}": v for each, v in quality.items()})
        if is_whole:
            run.close()
        return run

    def seconds_of(self, run: StageRun) -> float:
        """How long a stage took until it was closed, what was trained for it included: since the run before
        it ended.
        """
        ended_ms = run.run.info.end_time or time.time() * 1000
        return (ended_ms - self._ended_before_ms(run)) / 1000

    def _ended_before_ms(self, run: StageRun) -> float:
        """When what came before a run under this climb ended; for the first one, when this process took it up."""
        others = [each.info.end_time for each in self.children() if each.info.run_id != run.id and each.info.end_time]
        return float(max([*others, self.run.info.start_time, _process_start_ms()]))

    # -- its history --------------------------------------------------------------------------------------------------

    def history(self, requirements: Iterable[Requirement], last_run_id: RunId | None = None) -> list[Record]:
        """Every stage so far, every verdict judged anew from what was logged (rule 3).

        `last_run_id` adds a stage that has just ended in ERROR: its run is not FINISHED, so that a resumed climb tries
        again.
        """
        reference = self.reference_run()
        runs = ([reference] if reference else []) + self.stage_runs()
        if last_run_id and last_run_id not in {run.id for run in runs}:
            runs.append(self.stage(last_run_id))
        bounds = tuple(requirements)
        return [run.record(bounds) for run in runs]

    def parent(self, requirements: Iterable[Requirement]) -> Candidate | None:
        """The best candidate so far."""
        record = best(self.history(requirements))
        return self.latest(record.stage).candidate() if record else None

    def teacher(self, requirements: Iterable[Requirement]) -> Candidate | None:
        """The candidate that may teach, without a guard (a student gets its own); None where none passes quality."""
        record = teacher(self.history(requirements))
        return self.latest(record.stage).candidate().model_copy(update={"guard": None}) if record else None

    def calls(self) -> Calls:
        """Calls paid for and reused over every stage and try; a stage's own figures include its tries'."""
        query = is_tag(PARENT, self.id)
        runs = list(self.client.search_runs([self.experiment_id], query))
        paid, reused = (sum(run.data.metrics.get(name, 0.0) for run in runs) for name in (PAID, REUSED_CALLS))
        return Calls(int(paid), int(reused))

    # -- how it ends --------------------------------------------------------------------------------------------------

    def log_answer(self, stage: Stage, answer: str, who: str, why: str) -> None:
        """What a person decided; for a stage that was UNDECIDED it is also its resolution."""
        text = f"{answer} by {who or 'unnamed'}: {why or 'no reason given'}"
        self.write(tags={f"{OVERRIDE}.{stage}": text})
        for run in self.stage_runs():
            if run.stage == stage and run.verdict == "UNDECIDED":
                resolution = "pass" if answer == "granted" else "climb"
                run.write(tags={RESOLUTION: resolution, OVERRIDE: f"{answer} by {who or 'unnamed'}: {why}"})

    def log_test(self, figures: Mapping[str, Figure]) -> None:
        """The winner's figures on the test split."""
        estimates = {f"test.{name}": figure.estimate for name, figure in figures.items()}
        self.write(estimates | {f"test.{name}.n": float(figure.n) for name, figure in figures.items()})

    def log_ending(self, ending: ClimbEnding, venue: str, note: str) -> None:
        """Outcome, reason and money; a halted climb stays resumable (status FAILED)."""
        figures = {
            SPENT: ending.usd_spent,
            "usd.avoided": ending.usd_avoided,
            PAID: float(ending.calls_paid),
            REUSED_CALLS: float(ending.calls_cached),
        }
        tags = {
            OUTCOME: ending.outcome,
            REASON: ending.reason,
            VENUE: venue,
            CONFIRMED: ending.confirmed,
            SURE: "yes" if ending.sure else "no",
            NOTE: note,
            RUN_NAME: f"ladder · {ending.outcome} · ${ending.usd_spent:.4f}",
        }
        self.write(figures, tags)
        self.close(FAILED if ending.outcome in HALTED else FINISHED)
        leave(self.client, self.id)


def _is_stale(run: StageRun, later: Iterable[StageRun]) -> bool:
    """Whether a stage was skipped before one below it was measured, so that it has to be considered anew."""
    if run.verdict != SKIPPED:
        return False
    below = LADDER[: LADDER.index(run.stage)] if run.stage in LADDER else ()
    return any(each.verdict != SKIPPED and each.stage in below for each in later)


def _process_start_ms() -> float:
    return float(psutil.Process().create_time()) * 1000


@dataclass(frozen=True)
class OpenClimb:
    """A climb as it was opened."""

    run: ClimbRun
    is_resumed: bool


def open_climb(client: MlflowClient, use_case: UseCase, key: str) -> OpenClimb:
    """Resume the unfinished or halted climb with this key, or a new one; BadInput where another process climbs it."""
    where = experiment_id(client, use_case.name)
    query = f"{is_tag(CLIMB_KEY, key)} and attributes.status != '{FINISHED}'"
    tags = {KIND: "ladder", CLIMB_KEY: key, USE_CASE: use_case.name}
    run, is_resumed = take_up(
        client,
        f"a climb of {use_case.name}",
        key,
        lambda: client.search_runs([where], query),
        lambda: client.create_run(where, tags=tags, run_name=f"ladder · {use_case.name}"),
    )
    if is_resumed:
        client.update_run(run.info.run_id, status=RUNNING)
    client.log_dict(run.info.run_id, handed_over(client, use_case).model_dump(mode="json"), USE_CASE_FILE)
    climb = ClimbRun.read(client, run.info.run_id)
    if is_resumed:
        climb.reconsider_skips()
    return OpenClimb(climb, is_resumed)
