"""A climb from its opening to its ending: what happens around the stages.

It checks input before anything is spent, measures row 0, asks the core for the next step and writes down the ending.
Which step comes next is decided by `leastwise.ladder` from the logged history.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefect import task

from leastwise import ladder
from leastwise.answering import answering, prompted
from leastwise.answering.workspace import Workspace
from leastwise.evaluating import evaluation, forgetting, judging, reference_stage
from leastwise.ladder import Record, Step
from leastwise.ladder.ending import Ending
from leastwise.record import bills, costing, figures, run_record, tracking
from leastwise.rows.overrides import Overrides
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.use_case import LADDER, Stage
from leastwise.record import reports
from tasks import console

WINNERS = frozenset({*LADDER, "reference"})


@task(name="open climb")
def open_climb(use_case: str, overrides: Overrides | None = None) -> str:
    """Check the use case, its rows, models, prices and money, then open or resume its climb; gives back the run id."""
    wanted = load(use_case, overrides)
    client = tracking.connect()
    tables = Tables(wanted)
    tables.check()
    work = Workspace.before_climb(client, wanted, tables)
    work.check()
    judging.check_grades(work)
    forgetting.check(work)
    train = tables.get("train")
    prompted.check_room(
        work, answering.shots(work, train, wanted.retrieval.fixed_examples) if train is not None else ()
    )
    climb = tracking.open_climb(client, wanted, work.climb_key)
    run_record.log_data(client, climb.run_id, work.data_sets())
    console.show_opening(wanted, climb, tracking.tracking_uri())
    if climb.resumed:
        for record in tracking.read_history(client, climb, wanted.gate_requirements):
            console.show_record(record, wanted.gate_requirements)
    return climb.run_id


@task(name="measure the no-LLM reference")
def measure_reference(climb_id: str) -> None:
    """Row 0: majority class, nearest neighbours and logistic regression on embeddings, on the same gate rows."""
    work = Workspace.of(climb_id)
    has_labels = work.use_case.task.answers is not None and work.tables.rows("train")
    if work.encoder is not None and has_labels and not tracking.reference_runs(work.client, work.climb):
        reference_stage.measure(work)


def next_step(
    climb_id: str, last_run_id: str | None = None, answers: dict[Stage, str] | None = None, can_ask: bool = False
) -> Step:
    """The core's next step for a climb, from its logged history; `last_run_id` adds a stage that ended in ERROR."""
    work = Workspace.of(climb_id)
    return ladder.next_step(work.use_case, work.history(last_run_id), work.situation(answers, can_ask))


def skip(climb_id: str, stage: Stage, reason: str) -> None:
    """Log a skipped stage with its reason."""
    work = Workspace.of(climb_id)
    tracking.log_skip(work.client, work.climb, stage, LADDER.index(stage) + 1, reason)
    console.show_skip(stage, reason)


@task(name="confirm on test")
def confirm(climb_id: str, outcome: str) -> str:
    """Measure the winner, a stage or `reference`, once more on the untouched test split; `yes`, `no`, or `not measured`."""
    work = Workspace.of(climb_id)
    rows = work.test_rows()
    if rows is None:
        return "not measured"
    if outcome == "reference":
        measured = reference_stage.confirm(work, rows)
    else:
        candidate = work.candidate_of(outcome)
        with answering.open_answerer(work, candidate) as answerer, judging.open_scorer(work, candidate.stage) as scorer:
            measured = evaluation.measure_all(work.use_case, answerer, rows, console.show_progress, scorer)
    if not measured:
        console.show_note(
            "the winner could not be confirmed: more than 1% of the test rows were lost to the infrastructure"
        )
        return "not measured"
    run_record.log_test(work.client, climb_id, measured)
    floors = {wanted.name: wanted.limit for wanted in work.use_case.gate_requirements}
    met = all(estimate >= floors[name] for name, (estimate, _) in measured.items() if name in floors)
    console.show_test(measured, met)
    return "yes" if met else "no"


@task(name="finish climb")
def finish(climb_id: str, step: Step, confirmed: str) -> Ending:
    """Write down how the climb ended and show it."""
    work = Workspace.of(climb_id)
    outcome = step.outcome or "error"
    history = work.history()
    totals = tracking.totals(work.client, work.climb)
    ending = Ending(
        outcome=outcome,
        reason=step.reason,
        usd_spent=work.usd_spent,
        usd_avoided=_avoided(work, history) if outcome in WINNERS else 0.0,
        calls_paid=max(
            int(totals["calls.paid"]), work.ledger.calls(climb_id)
        ),  # the ledger knows of confirming and labelling
        calls_cached=int(totals["calls.cached"]),
        confirmed=confirmed,
        mlflow_run_id=climb_id,
    )
    venue = _venue(work, outcome)
    bill, billed = bills.report(work, outcome)
    note = f"{reports.ladder_note(work.use_case, history, ending)}\n\n{bill}"
    work.log_metrics(billed | {f"usd.spent.{purpose}": usd for purpose, usd in work.ledger.spent_for(climb_id).items()})
    run_record.log_ending(work.client, climb_id, ending, venue, note)
    figures.log_ladder(work.client, climb_id, history, work.use_case.gate_requirements)
    bills.log_figures(work)
    console.publish_markdown(f"ladder-{work.use_case.name}", note)
    where = f"{tracking.tracking_uri()}/#/experiments/{work.climb.experiment_id}/runs/{climb_id}/artifacts"
    console.publish_link(
        f"figures-{work.use_case.name}", where, "ladder, cost against traffic, cost by stage and spend in MLflow"
    )
    console.show_ending(work.use_case, ending, history, tracking.tracking_uri())
    return ending


def _venue(work: Workspace, outcome: str) -> str:
    if outcome == "reference":
        return str(tracking.reference_runs(work.client, work.climb)[0].data.tags["leastwise.venue"])
    return work.candidate_of(outcome).venue if outcome in LADDER else ""


def _avoided(work: Workspace, history: list[Record]) -> float:
    """Estimates of the stages that were not run and could have been: skipped ones do not count."""
    done, known = {record.stage for record in history}, costing.expected(work)
    return sum(known[stage].usd for stage in LADDER if stage not in done and work.is_applicable(stage))


def stage_run_id(climb_id: str, stage: Stage) -> str:
    """The MLflow run of a stage that another process ran."""
    work = Workspace.of(climb_id)
    return str(tracking.latest_run(work.client, work.climb, stage).info.run_id)


def log_answer(climb_id: str, stage: Stage, answer: str, who: str, why: str) -> None:
    """Log what a person decided; for a stage that was UNDECIDED it is also its resolution."""
    work = Workspace.of(climb_id)
    work.client.set_tag(
        climb_id, f"leastwise.override.{stage}", f"{answer} by {who or 'unnamed'}: {why or 'no reason given'}"
    )
    for run in tracking.stage_runs(work.client, work.climb):
        if run.data.tags.get("leastwise.stage") == stage and run.data.tags.get("leastwise.verdict") == "UNDECIDED":
            resolution = "pass" if answer == "granted" else "climb"
            work.client.set_tag(run.info.run_id, "leastwise.resolution", resolution)
            work.client.set_tag(run.info.run_id, "leastwise.override", f"{answer} by {who or 'unnamed'}: {why}")


@dataclass(frozen=True)
class StageEnding:
    """What a stage run on its own came to; its fields are the JSON line a command prints."""

    outcome: str
    reason: str
    usd_spent: float
    calls_paid: int
    mlflow_run_id: str

    @property
    def exit_status(self) -> int:
        """0 PASS, 3 FAIL, 4 UNDECIDED, 1 ERROR."""
        return {"PASS": 0, "FAIL": 3, "UNDECIDED": 4}.get(self.outcome, 1)


def stage_ending(climb_id: str, run_id: str) -> StageEnding:
    """Read back what a stage run came to."""
    work = Workspace.of(climb_id)
    run = work.client.get_run(run_id)
    tags, metrics = run.data.tags, run.data.metrics
    return StageEnding(
        outcome=tags.get("leastwise.verdict", "ERROR"),
        reason=tags.get("leastwise.reason", ""),
        usd_spent=metrics.get("usd.spent", 0.0),
        calls_paid=int(metrics.get("calls.paid", 0)),
        mlflow_run_id=run_id,
    )
