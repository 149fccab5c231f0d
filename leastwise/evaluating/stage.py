"""A stage measured under its climb: its candidates race for the first PASS, each is logged, read back and judged.

Which candidates a stage has is said in `tasks/`, one file a stage; the order of stages and the verdicts are not decided
here (see `leastwise.ladder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from leastwise import ladder
from leastwise.answering.answerer import Answerer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.packing import referred
from leastwise.answering.retrieval_figures import RetrievalFigures, RetrievalMeter, read_figures
from leastwise.answering.servers import engine_of
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.cascade_offer import at_its_engine, key_before
from leastwise.evaluating.guard_offer import guards_offered
from leastwise.evaluating.racing import Race, Resumable, in_words
from leastwise.evaluating.search.offer import SearchOffer, search_note, with_search
from leastwise.evaluating.tries import Offer, Tries, Try
from leastwise.ladder import Evaluation, Verdict, judge
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.money.machine_cost import hosting_hour_usd
from leastwise.record.figures import log_intervals
from leastwise.record.reports import gate_table, judged_beside, run_name, unknown_usage
from leastwise.record.run import ENGINE, FAILED, FINISHED, JUDGE, MAY_TEACH, OPEN_WEIGHTS, RESOLUTION, SURE, VENUE
from leastwise.record.stage_run import StageRun
from leastwise.stores.ledger import Machine
from leastwise.use_case import Stage

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
    tries = _raced(work, run, stage, candidates, meter)
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


def _raced(
    work: Workspace, run: StageRun, stage: Stage, candidates: Sequence[Candidate | Offer], meter: RetrievalMeter
) -> Tries:
    """The stage's candidates as they race for the first PASS; each is a child run where there are several."""
    with _paid_endpoint(work, stage) as machine:

        def start(candidate: Candidate) -> Resumable:
            usd = work.catalogue.worst_case_usd(candidate)
            return Resumable(work, candidate, partial(_answering, work, candidate), machine, usd=usd)

        def conclude(candidate: Candidate, measured: Measured) -> Try:
            return _concluded(work, run, candidate, measured, len(candidates) > 1, meter)

        return Race(work, run, start, conclude).of(candidates)


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


def _concluded(
    work: Workspace,
    run: StageRun,
    candidate: Candidate,
    measured: Measured,
    is_one_of_several: bool,
    meter: RetrievalMeter,
) -> Try:
    """What was measured of a candidate, judged; in a child run of its own where the stage tries several."""
    measured = with_search(work, candidate, measured)
    plain = Try(candidate, judge(measured.evaluation, work.use_case.gate_requirements), measured)
    if not is_one_of_several:
        return plain
    parked = ("parked",) if measured.evaluation.parked else ()  # another record than that of its end
    child = work.run.open_stage(candidate.stage, content_key(candidate.key, work.question.key, *parked), under=run.id)
    if child.is_finished:  # logged before a kill: the answers were stored, so it is measured as it was then
        return replace(plain, verdict=child.judged(work.use_case.gate_requirements).verdict)
    suffix = ", ".join([in_words(candidate), *parked])
    logged = _log(work, child, plain, meter, measured.evaluation.usd_spent, suffix=suffix)
    return replace(plain, verdict=logged.verdict)


def measure_candidate(
    work: Workspace, candidate: Candidate, machine: Machine | None = None, alphas: Alphas | None = None
) -> Measured:
    """Answer the rows a candidate is judged on as it would in production; nothing is logged yet. Raises BudgetExceeded
    where the `machine` it runs on has no more paid time.
    """
    return Resumable(work, candidate, partial(_answering, work, candidate), machine, alphas).go_on()


def _answering(work: Workspace, candidate: Candidate) -> AbstractContextManager[Answerer]:
    """Who answers for a candidate, opened where the stage is judged."""
    return work.place.serving(candidate) if work.place else open_answerer(work, candidate)


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
