"""A climb from its opening to its ending: what happens around the stages.

Input is checked before anything is spent, row 0 is measured, the ladder is asked for the next step and the ending is
written down. Which step comes next is decided by `leastwise.ladder` from the logged history.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from prefect import task

from leastwise import ladder
from leastwise.answering.answerers import open_answerer
from leastwise.answering.servers import missing_engine
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import reference
from leastwise.evaluating.confirmation import measure_all
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.ladder import Record, Step, best
from leastwise.ladder.ending import ClimbEnding, StageEnding
from leastwise.ladder.needs import StageAnswer
from leastwise.record import climb_run
from leastwise.record.bills import Bills
from leastwise.record.certificate.contents import Avoided
from leastwise.record.client import connect, leave, shown_uri
from leastwise.record.figures import log_ladder
from leastwise.record.judged_runs import unfinished_use_cases
from leastwise.record.money_figures import log_money_figures
from leastwise.record.reports import ladder_note, unknown_usage
from leastwise.record.review.views import COSTS_VIEW, GATE_VIEW, comparison_url, view_url
from leastwise.record.run import DEPLOYED, OVERRIDE
from leastwise.rows.use_case_file import Overrides, load
from leastwise.run_id import RunId
from leastwise.stores.shared.state import turns
from leastwise.use_case import LADDER, Stage
from tasks.pipeline.certify import certify
from tasks.session import console
from tasks.session.artifacts import publish_link, publish_markdown
from tasks.session.checks import check
from tasks.session.log_copies import resting_on_copies
from tasks.session.shown import show_rest
from tasks.session.workspace import open_workspace, prospect_of, situation_of

WINNERS = frozenset({*LADDER, "reference"})
NOT_MEASURED = "not measured"
AGAIN_S = 5.0  # between two looks at whether a stage is free

log = logging.getLogger("leastwise.tasks.climb")


@task(name="open climb")
def open_climb(use_case: str, overrides: Overrides | None = None) -> RunId:
    """Check the use case, its rows, models, prices and money, then open or resume its climb; gives back the run id."""
    case, client = load(use_case, overrides), connect()
    case = resting_on_copies(case, unfinished_use_cases(client, case.name, "ladder"))
    prospect = prospect_of(case)
    check(prospect)
    climb = climb_run.open_climb(client, case, prospect.question.key)
    climb.run.log_data(prospect.question.data_sets())
    console.show_opening(case, climb, shown_uri())
    if prospect.question.units_in_words:
        console.say(f"  … {prospect.question.units_in_words}")
    for warning in prospect.catalogue.retiring(datetime.now(UTC).date()):
        console.say(f"  … beware: {warning}")
    if climb.is_resumed:
        requirements = case.gate_requirements
        for record in climb.run.history(requirements):
            console.show_record(record, requirements)
    return climb.run.id


def reference_comes_first(climb: RunId) -> bool:
    """Whether row 0 must be there before the first stage: where it may end the climb. One that is only reported comes
    after the first verdict, for it embeds every row, which takes most of a minute.
    """
    return open_workspace(climb).use_case.reference == "stop"


@task(name="measure the no-LLM reference")
def measure_reference(climb: RunId) -> None:
    """Row 0: majority class, nearest neighbours and logistic regression on embeddings, on the same gate rows."""
    work = open_workspace(climb)
    has_labels = work.use_case.task.answers is not None and work.tables.rows("train")
    if work.catalogue.encoder is None or not has_labels or work.run.reference_run():
        return
    if work.tables.need("train")["label"].nunique() < 2:
        console.say("  … no reference: all of data.train has one label, from which nothing can be told apart")
        return
    result = reference.measure_reference(work)
    run = work.run.reference_run()
    seconds = work.run.seconds_of(run) if run else 0.0
    console.show_reference(result.quality, result.evaluation, seconds)
    if result.evaluation.error:
        console.say(f"  … the reference does not end this climb: {result.evaluation.error}")
    if result.verdict:
        end = console.money_and_time(result.evaluation.usd_spent, None if result.is_reused else 0.0)
        console.show_stage("reference", result.evaluation, result.verdict, work.use_case.gate_requirements, end)


def next_step(
    climb: RunId, last_run: RunId | None = None, answers: dict[Stage, StageAnswer] | None = None, can_ask: bool = False
) -> Step:
    """The ladder's next step, from the climb's logged history; `last_run` adds a stage that ended in ERROR."""
    work = open_workspace(climb)
    history = work.run.history(work.use_case.gate_requirements, last_run)
    return ladder.next_step(work.use_case, history, situation_of(work, answers, can_ask))


def skip(climb: RunId, stage: Stage, reason: str) -> None:
    """Log a skipped stage with its reason (rule 2)."""
    open_workspace(climb).run.log_skip(stage, reason)
    console.show_skip(stage, reason)


def trains_at_host(climb: RunId, stage: Stage) -> bool:
    """Whether a stage needs no machine of its own, for a host trains what it asks for."""
    return stage == "fine_tune" and open_workspace(climb).use_case.training.managed is not None


@task(name="confirm on test")
def confirm(climb: RunId, outcome: str) -> str:
    """Measure the winner, a stage or `reference`, once more on the untouched test split (rule 11): `yes`, `no`, or
    `not measured`.
    """
    work = open_workspace(climb)
    rows = work.question.test_rows()
    if rows is None:
        return NOT_MEASURED
    if outcome == "reference":
        figures = reference.confirm_reference(work, rows)
    else:
        candidate = work.run.latest(outcome).candidate()
        with open_answerer(work, candidate) as answerer, open_scorer(work, candidate.stage) as scorer:
            figures = measure_all(answerer, rows, scorer, work.display)
    if not figures:
        console.say(
            "  … the winner could not be confirmed: more than 1% of the test rows were lost to the infrastructure"
        )
        return NOT_MEASURED
    work.run.log_test(figures)
    floors = {requirement.name: requirement.limit for requirement in work.use_case.gate_requirements}
    met = all(figure.estimate >= floors[name] for name, figure in figures.items() if name in floors)
    console.show_test(figures, met)
    return "yes" if met else "no"


def lacks_engine(climb: RunId, outcome: str) -> bool:
    """Whether this machine lacks the engine that a stage's winner was measured with: no other may answer for it."""
    return missing_engine(open_workspace(climb).run.latest(outcome).candidate()) is not None


@task(name="finish climb")
def finish(climb: RunId, step: Step, confirmed: str) -> ClimbEnding:
    """Write down how the climb ended and show it."""
    work = open_workspace(climb)
    use_case, history = work.use_case, work.run.history(work.use_case.gate_requirements)
    is_won = step.outcome in WINNERS
    avoided = _avoided(work, history) if is_won else []
    ending = _ending(work, step, confirmed, sum(each.expected_usd for each in avoided))
    bills = Bills(work.run, work.catalogue, work.budget)
    bill = bills.report(ending.outcome)
    note = f"{ladder_note(use_case, history, ending)}\n\n{bill.text}"
    by_purpose = {f"usd.spent.{purpose}": usd for purpose, usd in work.budget.spent_by_purpose().items()}
    work.run.write({**bill.metrics, **by_purpose})
    log_ladder(work.run, history, use_case.gate_requirements)
    log_money_figures(bills)
    if is_won:
        certify(work, ending, avoided)
    work.run.log_ending(ending, _venue(work, ending.outcome), note)  # last: what has an ending is whole
    publish_markdown(f"ladder-{use_case.name}", note)
    _publish_links(work, ending, history)
    console.show_ending(use_case, ending, history, shown_uri())
    if ending.outcome == "self_host":
        console.show_endpoint(work.run.latest("self_host").tag(DEPLOYED))
    show_rest(work)
    return ending


def _publish_links(work: Workspace, ending: ClimbEnding, history: list[Record]) -> None:
    """Where in MLflow to look: figures, the saved views, and the winner beside the runner-up, example by example."""
    name, uri, experiment = work.use_case.name, shown_uri(), work.run.experiment_id
    words = "ladder, cost against traffic, cost by stage and spend in MLflow"
    publish_link(f"figures-{name}", work.run.artifacts_url(uri), words)
    publish_link(f"gate-verdicts-{name}", view_url(uri, experiment, GATE_VIEW), "gate verdicts of all stages in MLflow")
    publish_link(f"costs-{name}", view_url(uri, experiment, COSTS_VIEW), "costs of all climbs and stages in MLflow")
    second = best([record for record in history if record.stage in LADDER and record.stage != ending.outcome])
    if ending.outcome in LADDER and second:
        pair = (work.run.latest(stage).origin.id for stage in (ending.outcome, second.stage))
        words = f"{ending.outcome} and {second.stage} example by example in MLflow"
        publish_link(f"examples-{name}", comparison_url(uri, experiment, *pair), words)


def _ending(work: Workspace, step: Step, confirmed: str, usd_avoided: float) -> ClimbEnding:
    outcome, calls = step.outcome or "error", work.run.calls()
    return ClimbEnding(
        outcome=outcome,
        reason="; ".join(filter(None, [step.reason, _upper_limit(work, outcome)])),
        usd_spent=work.budget.usd_spent,
        usd_avoided=usd_avoided,
        calls_paid=max(calls.paid, work.budget.calls),  # the ledger knows of confirming and labelling
        calls_cached=calls.reused,
        confirmed=confirmed,
        mlflow_run_id=work.run.id,
        sure=step.sure,
        accepted=step.accepted or (not step.sure and work.use_case.accept_estimate),
    )


def _upper_limit(work: Workspace, outcome: str) -> str:
    """That what the winner costs is an upper limit, where answers came without usage."""
    return unknown_usage(work.run.latest(outcome).figures) if outcome in LADDER else ""


def _venue(work: Workspace, outcome: str) -> str:
    if outcome == "reference":
        row_0 = work.run.reference_run()
        return row_0.venue if row_0 else ""
    return work.run.latest(outcome).candidate().venue if outcome in LADDER else ""


def _avoided(work: Workspace, history: list[Record]) -> list[Avoided]:
    """The stages that were not run and could have been, with their estimates: skipped ones do not count."""
    done, expected, situation = {record.stage for record in history}, work.costing.expected(), situation_of(work)
    left = [stage for stage in LADDER if stage not in done]
    return [
        Avoided(stage=stage, expected_usd=usd, most_usd=max(usd, work.costing.worst.get(stage, 0.0)))
        for stage in left
        if ladder.could_run(work.use_case, stage, history, situation)
        for usd in [expected[stage].usd]
    ]


def stage_run_id(climb: RunId, stage: Stage) -> RunId:
    """The MLflow run of a stage that another process ran."""
    return open_workspace(climb).run.latest(stage).id


@contextlib.contextmanager
def alone_at(climb: RunId, stage: Stage | Literal["confirm"]) -> Iterator[None]:
    """Nobody else works on this stage of the climb while the block runs. Who does is waited for until they have ended
    or were given up: two at once would buy the same answers. Nothing where machines share no state.
    """
    shared, name, said = turns(), f"the stage {stage} of climb {climb}", False
    while holder := shared.take(name):
        if not said:
            log.info(f"{name} is at work already: {holder.in_words}; it is waited for")
        said = True
        time.sleep(AGAIN_S)
    try:
        yield
    finally:
        shared.give_back(name)


def leave_given(climb: RunId) -> dict[Stage, StageAnswer]:
    """The stages somebody gave leave for, as logged: who answered is not asked again by a run that goes on."""
    run = open_workspace(climb).run
    return {stage: "granted" for stage in LADDER if run.tag(f"{OVERRIDE}.{stage}").startswith("granted by ")}


def log_answer(climb: RunId, stage: Stage, answer: StageAnswer, who: str, why: str) -> None:
    """Log what a person decided (rules 5 and 7)."""
    open_workspace(climb).run.log_answer(stage, answer, who, why)


def stage_ending(climb: RunId, run_id: RunId) -> StageEnding:
    """Read back what a stage run came to."""
    work = open_workspace(climb)
    run = work.run.stage(run_id)
    show_rest(work)
    usd, calls = run.figures.get("usd.spent", 0.0), int(run.figures.get("calls.paid", 0))
    verdict = run.verdict or "ERROR"
    reason = "; ".join(filter(None, [run.reason, unknown_usage(run.figures)]))
    return StageEnding(verdict, reason, usd, calls, run.id, sure=verdict in ("PASS", "FAIL"))


def stage_halted(climb: RunId, why: str, outcome: str = "budget") -> StageEnding:
    """The ending of a stage on its own that a cap or an outage stopped; run again, it goes on."""
    work = open_workspace(climb)
    budget = work.budget
    show_rest(work)
    return StageEnding(outcome, why, budget.usd_spent, budget.calls, climb)


def leave_climb(climb: RunId) -> None:
    """This process no longer works on the climb: another may take it up."""
    with contextlib.suppress(BadInput):  # a server that is gone: the sign ends with this process
        leave(connect(), climb)
