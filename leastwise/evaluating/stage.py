"""A stage measured under its climb: candidates in order up to the first PASS, each logged, read back and judged.

Which candidates a stage has is said in `tasks/`, one file a stage; the order of stages and the verdicts are not decided
here (see `leastwise.ladder`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

from leastwise import ladder
from leastwise.answering.answerer import Outage
from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.packing import referred
from leastwise.answering.retrieval_figures import RetrievalFigures, RetrievalMeter, read_figures
from leastwise.answering.servers import engine_of
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import CannotBeAsked
from leastwise.evaluating.cascade_offer import at_its_engine, key_before
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.forgetting import exam_of, forgetting_figures
from leastwise.evaluating.guard_offer import guards_offered
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.search.offer import SearchOffer, search_note, with_search
from leastwise.evaluating.tries import Offer, Tries, Try
from leastwise.ladder import Evaluation, Verdict, judge
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.money.machine_cost import hosting_hour_usd
from leastwise.progress import EvaluationProgress
from leastwise.record.figures import log_intervals
from leastwise.record.reports import gate_table, judged_beside, run_name, unknown_usage
from leastwise.record.review.background import held
from leastwise.record.run import ENGINE, FAILED, FINISHED, JUDGE, MAY_TEACH, OPEN_WEIGHTS, RESOLUTION, SURE, VENUE
from leastwise.record.stage_run import StageRun
from leastwise.stores.ledger import Machine
from leastwise.use_case import Stage

log = logging.getLogger(__name__)

ASKED_BY_THE_TOKEN = ("prompt", "rag", "cache")
REPLAYED, AT_ITS_TIMES = "replayed whole", "at the times of its log"  # raised where the way of measuring changed
ANNOUNCED_HERE = (*ASKED_BY_THE_TOKEN, "self_host")  # what the others cost is spent by the time they are measured


@dataclass(frozen=True)
class StageResult:
    """A stage as its run holds it. `how`: measured now, linked from an earlier climb, or of this very climb already."""

    run: StageRun
    evaluation: Evaluation
    verdict: Verdict
    retrieval: RetrievalFigures
    table: str
    how: Literal["measured", "linked", "there"]


@dataclass(frozen=True)
class _Logged:
    evaluation: Evaluation
    verdict: Verdict
    retrieval: RetrievalFigures
    table: str


def evaluate_stage(work: Workspace, stage: Stage, listed: Sequence[Candidate | Offer]) -> StageResult:
    """Measure candidates, and offers that are worth it, up to the first PASS; log the stage by the best of them."""
    candidates = [*(at_its_engine(each, work) for each in listed), *guards_offered(work.use_case, stage)]
    key = _key(work, stage, *(each.key for each in candidates))
    done = work.run.finished(key, _key(work, stage, *(key_before(each, work.home) for each in candidates)))
    if done is not None:
        return _reuse(work, done)
    run, meter = work.run.open_stage(stage, key), RetrievalMeter(work)
    if stage in ANNOUNCED_HERE:
        work.costing.announce(stage)
    tries = _try_in_turn(work, run, stage, candidates, meter)
    best = tries.best(_never_asked(work, stage, candidates))
    cost = sum(each.usd for each in tries.tried) if stage in ASKED_BY_THE_TOKEN else None
    logged = _log(work, run, best, meter, work.budget.spent_by(stage), cost=cost)
    return StageResult(run.again(), logged.evaluation, logged.verdict, logged.retrieval, logged.table, "measured")


def _key(work: Workspace, stage: Stage, *candidates: str) -> str:
    return content_key(stage, work.question.key, *candidates, *_measured_as(work, stage))


def _measured_as(work: Workspace, stage: Stage) -> tuple[str, ...]:
    """What a key says of the way of measuring, where that is not the one it always was."""
    if stage != "cache":
        return work.place.name if work.place else ()
    return (REPLAYED, AT_ITS_TIMES) if work.question.has_times_of_its_own else (REPLAYED,)


def evaluate_challenger(
    work: Workspace, candidate: Candidate, alphas: Alphas, called: str = "challenger"
) -> StageResult:
    """Measure one candidate at the gate, over every requirement, with alphas of a question of its own.

    It is logged and judged as a stage is; what it is `called` keeps questions apart that drew alpha for themselves.
    """
    key = content_key(called, work.question.key, candidate.key)
    if (done := work.run.finished(key)) is not None:
        return _reuse(work, done)
    run, meter = work.run.open_stage(candidate.stage, key), RetrievalMeter(work)
    with _paid_endpoint(work, candidate.stage) as machine:
        measured = measure_candidate(work, candidate, machine, alphas)
    plain = Try(candidate, judge(measured.evaluation, work.use_case.gate_requirements), measured)
    logged = _log(work, run, plain, meter, measured.evaluation.usd_spent, suffix=called)
    return StageResult(run.again(), logged.evaluation, logged.verdict, logged.retrieval, logged.table, "measured")


def _try_in_turn(
    work: Workspace, run: StageRun, stage: Stage, candidates: Sequence[Candidate | Offer], meter: RetrievalMeter
) -> Tries:
    """Every try up to the first PASS.

    After an ERROR the others are tried all the same: each has its own share of alpha, so a PASS is one.
    """
    tries = Tries()
    with _paid_endpoint(work, stage) as machine:
        for each in candidates:
            candidate = each if isinstance(each, Candidate) else _taken_up(work, run, each, tries)
            if candidate is None:
                continue
            with _counted(work, run, tries, _in_words(candidate), candidate.key):
                tries.tried.append(_try(work, run, candidate, len(candidates) > 1, machine, meter))
            if tries.has_passed:
                break
    return tries


def _taken_up(work: Workspace, run: StageRun, offer: Offer, tries: Tries) -> Candidate | None:
    with _counted(work, run, tries, f"an offer in {offer.stage}", offer.key):
        return offer.take_up(work, run, tries)
    return None  # left out or lost


@contextmanager
def _counted(work: Workspace, run: StageRun, tries: Tries, what: str, key: str) -> Iterator[None]:
    """Count what a provider cannot take as left out, in a run of its own, and what an outage took as lost."""
    try:
        yield
    except CannotBeAsked as why:
        log.info(f"{run.stage}: {what} is left out: {why}")
        tries.left_out.append(f"{what}: {why}")
        child = work.run.open_stage(run.stage, content_key(key, work.question.key), under=run.id)
        child.log_left_out(f"{run.stage} · {what} · SKIPPED {why}", str(why))
    except Outage as why:
        log.info(f"{run.stage}: {why}")
        tries.lost.append(str(why))


def _never_asked(work: Workspace, stage: Stage, candidates: Sequence[Candidate | Offer]) -> Try:
    """What stands for a stage of which nothing could be asked: its first candidate, of which nothing is known."""
    starts = (each.start if isinstance(each, SearchOffer) else each for each in candidates)
    first = next(each for each in starts if isinstance(each, Candidate))
    rows, requirements = work.question.judged_rows(stage).set_hash, work.use_case.gate_requirements
    nothing = Evaluation(stage=stage, candidate=first.key, gate_hash=rows, measurements={})
    return Try(first, judge(nothing, requirements), Measured(nothing))


def _paid_endpoint(work: Workspace, stage: str) -> AbstractContextManager[Machine | None]:
    """An own endpoint is paid by the hour while it is measured; an api or a managed host bills each call."""
    usd = hosting_hour_usd(work.use_case)
    return work.budget.meter(stage, "serving").machine(usd, usd) if stage == "self_host" else nullcontext()


def _try(
    work: Workspace,
    run: StageRun,
    candidate: Candidate,
    is_one_of_several: bool,
    machine: Machine | None,
    meter: RetrievalMeter,
) -> Try:
    """Measure one candidate; as a child run of its own where the stage tries several."""
    measured = with_search(work, candidate, measure_candidate(work, candidate, machine))
    plain = Try(candidate, judge(measured.evaluation, work.use_case.gate_requirements), measured)
    if not is_one_of_several:
        return plain
    child = work.run.open_stage(candidate.stage, content_key(candidate.key, work.question.key), under=run.id)
    if child.is_finished:  # logged before a kill: the answers were stored, so it is measured as it was then
        return replace(plain, verdict=child.judged(work.use_case.gate_requirements).verdict)
    logged = _log(work, child, plain, meter, measured.evaluation.usd_spent, suffix=_in_words(candidate))
    return replace(plain, verdict=logged.verdict)


def _in_words(candidate: Candidate) -> str:
    """What tells a try from the others of its stage."""
    if candidate.guard:
        return f"{_in_words(candidate.model_copy(update={'guard': None}))}, guarded by {candidate.guard.score}"
    if candidate.cascade:
        return f"{candidate.cascade.first.model} → {candidate.model}"
    if candidate.prompt is None:
        return candidate.model
    return f"{candidate.model} {'tuned' if candidate.weights else candidate.prompt.how}"


def measure_candidate(
    work: Workspace, candidate: Candidate, machine: Machine | None = None, alphas: Alphas | None = None
) -> Measured:
    """Answer the rows a candidate is judged on as it would in production; nothing is logged yet. Raises BudgetExceeded
    where the `machine` it runs on has no more paid time.
    """

    def on_look(progress: EvaluationProgress) -> None:
        if machine:
            machine.keep_paid()
        work.display.show_evaluation(progress)

    inputs = Inputs.of(work.question, candidate.stage, exam_of(work, candidate))
    answering = work.place.serving(candidate) if work.place else open_answerer(work, candidate)
    with answering as answerer, open_scorer(work, candidate.stage) as scorer, held():
        measured = evaluate(work.use_case, candidate, answerer, inputs, alphas or work.alphas, scorer, on_look)
        more = forgetting_figures(work, candidate) | answerer.figures()
    return replace(measured, totals=measured.totals | more)


def _log(
    work: Workspace,
    run: StageRun,
    done: Try,
    meter: RetrievalMeter,
    spent: float,
    suffix: str = "",
    cost: float | None = None,
) -> _Logged:
    """Log a measurement, read it back, judge what was read and log the verdict: the record decides (rule 3).

    `suffix` names a try; without one it is the stage itself, which stands beside its estimate. `cost`: what it would
    have been billed with nothing stored from before, where that is not what was `spent`.
    """
    requirements, candidate, measured = work.use_case.gate_requirements, done.candidate, done.measured
    with referred(work, candidate) if measured.rows else nullcontext() as bundle:
        model_id = run.log_candidate(candidate, work.use_case, bundle)
    evaluation = measured.evaluation.model_copy(update={"usd_spent": spent})
    billed = spent if cost is None else cost
    estimated = {} if suffix or candidate.stage == "reference" else _estimates(work, candidate, billed)
    retrieval = meter.measure(candidate, measured)
    run.log_evaluation(evaluation, measured.totals | estimated | dict(retrieval.metrics), model_id)
    logged = run.judged(requirements)
    words = [each for each in (judged_beside(measured.totals), unknown_usage(measured.totals)) if each]
    table = gate_table(logged.evaluation, logged.verdict, requirements, work.use_case.alpha)
    table += "".join([retrieval.note, *(f"\n\n{each}." for each in words), search_note(work, candidate)])
    run.log_examples(measured)
    run.log_data(work.question.data_sets(*_judged_on(work, candidate.stage)))
    log_intervals(run, measured.intervals, requirements)
    name = run_name(candidate.stage, logged.verdict, logged.evaluation, suffix)
    tags = _tags(work, candidate, logged.evaluation, logged.verdict) | dict(retrieval.tags)
    run.log_verdict(name, logged.verdict, tags, table)  # what has a verdict is whole: a kill before it leaves none
    run.close(FAILED if logged.verdict.outcome == "ERROR" else FINISHED)
    return _Logged(logged.evaluation, logged.verdict, retrieval, table)


def _judged_on(work: Workspace, stage: str) -> tuple[str, ...]:
    if stage != "cache":
        return ("gate",)
    return ("traffic",) if work.question.traffic.is_scored else ("traffic", "gate")


def _estimates(work: Workspace, candidate: Candidate, cost: float) -> dict[str, float]:
    assert candidate.stage != "reference"
    return work.costing.figures(candidate.stage, cost, work.budget)


def _tags(work: Workspace, candidate: Candidate, logged: Evaluation, verdict: Verdict) -> dict[str, str]:
    judge_model = work.use_case.judge_model
    tags = _resolved(work, logged, verdict) | {
        VENUE: candidate.venue,
        ENGINE: engine_of(work.catalogue, candidate),
        MAY_TEACH: "yes" if work.catalogue.may_teach(candidate) else "no",
        OPEN_WEIGHTS: "yes" if candidate.weights or work.catalogue.model(candidate.model).is_open else "no",
    }
    if judge_model:
        tags[JUDGE] = f"{judge_model.uri} ({'gates' if work.use_case.is_graded else 'reports'})"
    return tags


def _resolved(work: Workspace, logged: Evaluation, verdict: Verdict) -> dict[str, str]:
    resolution = ladder.resolve(verdict, logged, work.use_case)
    return {RESOLUTION: resolution or "", SURE: "yes" if verdict.outcome in ("PASS", "FAIL") else "no"}


def _reuse(work: Workspace, done: StageRun) -> StageResult:
    """Link a finished stage run of an earlier climb: nothing is measured or paid twice (rule 8)."""
    is_own = done.parent_id == work.run.id
    run, requirements = done if is_own else work.run.link(done), work.use_case.gate_requirements
    logged, retrieval = run.judged(requirements), read_figures(run)
    if not is_own and not run.is_overridden:  # how UNDECIDED is resolved is no part of the question that was answered
        run.write(tags=_resolved(work, logged.evaluation, logged.verdict))
    table = gate_table(logged.evaluation, logged.verdict, requirements, work.use_case.alpha) + retrieval.note
    return StageResult(run, logged.evaluation, logged.verdict, retrieval, table, "there" if is_own else "linked")
