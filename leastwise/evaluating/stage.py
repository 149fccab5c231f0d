"""What each stage of the ladder makes: its candidates, and their evaluation under the climb it belongs to.

The order of stages and the verdicts are not decided here (see `leastwise.ladder`, `leastwise.ladder.gate`). Every function takes
the id of the climb's MLflow run, so that a stage can run in any process that reaches MLflow and the storage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from leastwise import ladder
from leastwise.answering import answering, exact_cache
from leastwise.answering.cascade import CascadeAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating import cascade_offer, evaluation, forgetting, guard_offer, judging, retrieval_figures
from leastwise.evaluating.cascade_offer import Offer
from leastwise.evaluating.guard_offer import GuardOffer
from leastwise.ladder.candidate import CachePolicy, Candidate, Prompt, Retriever, Weights
from leastwise.ladder.gate import Evaluation, Verdict, judge
from leastwise.money.worst_cost import hosting_hour_usd
from leastwise.record import costing, figures, run_record, tracking
from leastwise.stores.ledger import Machine
from leastwise.training import causal_student
from leastwise.use_case import LADDER, Stage
from leastwise.use_case.model import Model
from leastwise.use_case.prompts import short_prompt, system_prompt, trained_prompt
from leastwise.use_case.student import CausalStudent
from tasks import console

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

_BEST_FIRST = ("PASS", "UNDECIDED", "FAIL", "ERROR")


def prompt_candidates(climb_id: str) -> list[Candidate]:
    """Every allowed model, cheapest first, unconstrained and constrained."""
    work = Workspace.of(climb_id)
    train, use_case = work.tables.get("train"), work.use_case
    fixed = answering.shots(work, train, use_case.retrieval.fixed_examples) if train is not None else ()
    words = system_prompt(use_case.task)
    return [
        Candidate(
            stage="prompt",
            model=model.uri,
            revision=work.revision(model.uri),
            venue=model.venue,
            prompt=Prompt(system=words, shots=fixed, constrained=constrained),
        )
        for model in _cheapest_first(work)
        for constrained in ((False, True) if use_case.task.can_be_constrained else (False,))
    ]


def prompt_tries(climb_id: str) -> list[Candidate | Offer]:
    """The prompt candidates, with a cascade of the cheapest model and the dearest before any but the cheapest is tried."""
    candidates = prompt_candidates(climb_id)
    plain = [each for each in candidates if each.prompt and not each.prompt.constrained]
    if len(plain) < 2 or not Workspace.of(climb_id).use_case.offers_cascades:
        return list(candidates)
    cheapest = [each for each in candidates if each.model == plain[0].model]
    dearer = [each for each in candidates if each.model != plain[0].model]
    return [*cheapest, Offer("prompt", plain[0], plain[-1]), *dearer]


def rag_candidates(climb_id: str) -> list[Candidate]:
    """The same models with retrieved examples in place of fixed ones."""
    work = Workspace.of(climb_id)
    parent, retriever = work.parent_candidate(), retrieval_figures.with_chosen_mode(work, work.retriever())
    return [
        candidate.model_copy(
            update={
                "stage": "rag",
                "prompt": candidate.prompt.model_copy(update={"shots": ()}),
                "retriever": retriever,
                "parent": parent.key if parent else None,
            }
        )
        for candidate in prompt_candidates(climb_id)
        if candidate.prompt is not None
    ]


def cache_candidates(climb_id: str) -> list[Candidate]:
    """The parent with provider prompt caching and an exact response cache."""
    parent, wanted = _needed_parent(climb_id), Workspace.of(climb_id).use_case.caching
    policy = CachePolicy(provider=True, exact=True, ttl_s=wanted.ttl_s, most_bytes=round(wanted.most_mb * 1e6))
    return [parent.model_copy(update={"stage": "cache", "cache": policy, "parent": parent.key})]


def tuned_candidate(climb_id: str, stage: Stage, weights: Weights, base_dir: str | None = None) -> Candidate:
    """Trained weights behind a short prompt: retrieved examples go, documents stay if the parent needs them.

    `base_dir` is the further pre-trained base they sit on, if it is not the use case's own.
    """
    work = Workspace.of(climb_id)
    parent = work.parent_candidate()
    model_uri = Path(base_dir).as_uri() if base_dir else work.base().uri
    return Candidate(
        stage=stage,
        model=model_uri,
        revision=work.revision(model_uri),
        venue=work.base().venue,
        prompt=Prompt(system=trained_prompt(work.use_case)),
        retriever=_documents_only(parent.retriever) if parent else None,
        weights=weights,
        parent=parent.key if parent else None,
    )


def student_candidate(climb_id: str, weights: Weights) -> Candidate:
    """A distilled student at a managed host, or on own machines where residency wants that."""
    work = Workspace.of(climb_id)
    teacher, venue, student = (
        work.teacher_candidate(),
        ladder.student_venue(work.use_case),
        work.use_case.training.student,
    )
    assert venue is not None
    if isinstance(student, CausalStudent):
        uri = causal_student.base_dir(work, student).as_uri()
        prompt = Prompt(system=short_prompt(work.use_case.task))
        return Candidate(
            stage="distill",
            model=uri,
            revision=work.revision(uri),
            venue=venue,
            prompt=prompt,
            weights=weights,
            parent=teacher.key,
        )
    assert work.use_case.models.student is not None
    return Candidate(
        stage="distill",
        model=work.use_case.models.student,
        revision=work.revision(work.use_case.models.student),
        venue=venue,
        weights=weights,
        parent=teacher.key,
    )


def distill_tries(climb_id: str, weights: Weights) -> list[Candidate | Offer]:
    """The student alone, then a cascade that hands what the student is unsure of to its teacher."""
    work = Workspace.of(climb_id)
    student = student_candidate(climb_id, weights)
    offered = [Offer("distill", student, work.teacher_candidate())] if work.use_case.offers_cascades else []
    return [student, *offered]


def self_host_candidates(climb_id: str) -> list[Candidate]:
    """The best candidate's open weights behind the user's own endpoint."""
    parent = _needed_parent(climb_id)
    return [parent.model_copy(update={"stage": "self_host", "venue": "self_host", "parent": parent.key})]


def _documents_only(retriever: Retriever | None) -> Retriever | None:
    if retriever is None or retriever.documents == 0:
        return None
    return retriever.model_copy(update={"examples": 0})


def _needed_parent(climb_id: str) -> Candidate:
    parent = Workspace.of(climb_id).parent_candidate()
    if parent is None:
        raise RuntimeError(f"climb {climb_id} has no evaluated stage to start from")
    return parent


def _cheapest_first(work: Workspace) -> list[Model]:
    allowed = [model for model in work.use_case.models.candidates if work.use_case.may_be_sent_to(model)]
    return sorted(allowed, key=lambda model: work.price(model.uri).input + 0.25 * work.price(model.uri).output)


@task(name="smoke test")
def smoke_test(climb_id: str) -> None:
    """Serve the candidate that would be self-hosted and ask it one gate row before it is measured."""
    work = Workspace.of(climb_id)
    candidate = self_host_candidates(climb_id)[0]
    row, _ = work.gate_rows("gate")
    with answering.open_answerer(work, candidate) as answerer:
        answer = answerer.answer(row.head(1))[0]
    if answer.text is None:
        raise RuntimeError(f"the endpoint of {candidate.stage} gave no answer: {answer.error}")
    log.info(f"smoke test: the endpoint answers {answer.text!r} in {answer.latency_ms or 0:.0f} ms")


@task(name="evaluate")
def evaluate_stage(climb_id: str, stage: Stage, wanted: Sequence[Candidate | Offer]) -> str:
    """Measure candidates in order up to the first PASS and log the stage by the best of them; gives back its run id.

    An offer of a cascade is taken up when its turn comes, if it is worth it; last comes the offer of a guard.
    """
    work = Workspace.of(climb_id)
    candidates: list[Candidate | Offer | GuardOffer] = [*wanted, *guard_offer.offers(work.use_case, stage)]
    key = content_key(stage, work.question, *(candidate.key for candidate in candidates))
    done = tracking.finished(work.client, work.climb.experiment_id, key)
    if done is not None:
        return _reuse(work, done, stage, key)
    run = tracking.stage_run(work.client, work.climb, stage, key)
    if stage in ("prompt", "rag", "cache", "self_host"):  # what the others cost is spent by now
        costing.announce(work, stage)
    tried: list[Tried] = []
    with _endpoint_paid(work, stage) as machine:
        for number, each in enumerate(candidates, 1):
            candidate = _taken_up(work, run, each, tried)
            if candidate is None:
                continue
            tried.append(_try(work, run, candidate, number if len(candidates) > 1 else None, machine))
            if tried[-1][1].outcome in ("PASS", "ERROR"):
                break
    candidate, _, measured = min(tried, key=_rank)
    _log(work, run, candidate, measured, work.ledger.spent_by(climb_id, stage), cost=_cost(stage, tried))
    return str(run.info.run_id)


Tried = tuple[Candidate, Verdict, evaluation.Measured]


def _taken_up(
    work: Workspace, run: Run, each: Candidate | Offer | GuardOffer, tried: Sequence[Tried]
) -> Candidate | None:
    """The candidate of an offer, if it is worth trying after what was tried."""
    if isinstance(each, Offer):
        return cascade_offer.taken_up(work, each)
    if isinstance(each, GuardOffer):
        return guard_offer.taken_up(
            work, run.info.run_id, each, [(one, verdict) for one, verdict, _ in sorted(tried, key=_rank)]
        )
    return each


def _cost(stage: Stage, tried: list[Tried]) -> float | None:
    """What asking came to over every try, at the price of the call that bought each answer; None where more than calls is paid."""
    if stage not in ("prompt", "rag", "cache"):
        return None
    asked = sum(float(row["usd"]) for _, _, measured in tried for row in measured.rows)  # type: ignore[arg-type]
    return asked + sum(measured.totals.get("judge.usd", 0.0) for _, _, measured in tried)


def _endpoint_paid(work: Workspace, stage: Stage) -> AbstractContextManager[Machine | None]:
    """An own endpoint is paid by the hour while it is measured; an api or a managed host bills each call."""
    usd = hosting_hour_usd(work.use_case)
    return work.meter(stage, "serving").machine(usd, usd) if stage == "self_host" else nullcontext()


def _rank(tried: Tried) -> tuple[int, int, float, float]:
    """Best first: verdict, failed requirements, then surely better quality, then better quality by the estimate."""
    _, verdict, measured = tried
    quality = measured.evaluation.measurements.get("quality")
    sure, likely = (quality.lower, quality.estimate) if quality else (0.0, 0.0)
    return _BEST_FIRST.index(verdict.outcome), len(verdict.named("FAIL")), -sure, -likely


def _try(work: Workspace, run: Run, candidate: Candidate, number: int | None, machine: Machine | None) -> Tried:
    """Measure one candidate; as a child run of its own where the stage tries several."""
    measured = measure_candidate(work, candidate, machine)
    if number is None:
        return candidate, judge(measured.evaluation, work.use_case.gate_requirements), measured
    key = content_key(candidate.key, work.question)
    child = tracking.stage_run(work.client, work.climb, candidate.stage, key, parent=run.info.run_id)
    verdict = _log(work, child, candidate, measured, measured.evaluation.usd_spent, suffix=_how(candidate))
    return candidate, verdict, measured


def _how(candidate: Candidate) -> str:
    if candidate.guard:
        return f"{_how(candidate.model_copy(update={'guard': None}))}, guarded by {candidate.guard.score}"
    if candidate.cascade:
        return f"{candidate.cascade.first.model} → {candidate.model}"
    if candidate.prompt is None:
        return candidate.model
    if candidate.weights:
        return f"{candidate.model} tuned"
    return f"{candidate.model} {'constrained' if candidate.prompt.constrained else 'unconstrained'}"


def measure_candidate(work: Workspace, candidate: Candidate, machine: Machine | None = None) -> evaluation.Measured:
    """Answer the rows a candidate is judged on as it would in production; nothing is logged yet.

    Raises BudgetExceeded where the `machine` it runs on has no more paid time.
    """

    def on_look(progress: evaluation.Progress) -> None:
        if machine:
            machine.keep_paid()
        console.show_progress(progress)

    rows, set_hash = work.gate_rows("traffic" if candidate.stage == "cache" else "gate")
    with answering.open_answerer(work, candidate) as answerer, judging.open_scorer(work, candidate.stage) as scorer:
        measured = evaluation.evaluate(
            work.use_case,
            candidate,
            answerer,
            rows,
            work.alphas,
            set_hash,
            scorer=scorer,
            out_of_scope=work.tables.get("out_of_scope"),
            shifted=work.tables.get("shifted"),
            exam=forgetting.exam(work, candidate),
            paraphrases=work.tables.get("paraphrases") if candidate.stage != "cache" else None,
            on_look=on_look,
        )
        measured.totals |= forgetting.figures(work, candidate)
        if isinstance(answerer, CascadeAnswerer):
            measured.totals |= answerer.figures()
        if isinstance(answerer, exact_cache.ExactCache):
            measured.totals |= answerer.saved()
            console.show_savings(measured.totals)
    return measured


def _log(
    work: Workspace,
    run: Run,
    candidate: Candidate,
    measured: evaluation.Measured,
    spent: float,
    suffix: str = "",
    cost: float | None = None,
) -> Verdict:
    """Log a measurement, read it back, judge what was read and log the verdict: the record decides (rule 3)."""
    run_id, requirements, stage = run.info.run_id, work.use_case.gate_requirements, candidate.stage
    model_id = run_record.log_candidate(work.client, run, candidate)
    whole = measured.evaluation.model_copy(update={"usd_spent": spent})
    estimated = {} if suffix or stage == "reference" else costing.figures(work, stage, spent if cost is None else cost)
    grounded = retrieval_figures.measured_of(work, candidate, measured)
    run_record.log_evaluation(
        work.client, run_id, whole, measured.totals | estimated | dict(grounded.metrics), model_id
    )
    logged, verdict = run_record.judge_logged(work.client, run_id, requirements)
    tags = _tags(work, candidate, logged, verdict) | dict(grounded.tags)
    name = console.run_name(candidate.stage, verdict, logged, suffix)
    table = console.gate_table(logged, verdict, requirements, work.use_case.alpha) + grounded.note
    run_record.log_verdict(work.client, run_id, name, verdict, tags, table)
    run_record.log_examples(work.client, run_id, measured)
    run_record.log_data(work.client, run_id, work.data_sets("traffic" if candidate.stage == "cache" else "gate"))
    figures.log_intervals(work.client, run_id, measured, requirements)
    work.client.set_terminated(run_id, "FAILED" if verdict.outcome == "ERROR" else "FINISHED")
    if not suffix:
        console.publish_markdown(f"gate-{candidate.stage}", table)
        console.show_stage(candidate.stage, logged, verdict, requirements, reused=False, more=grounded.sentence)
    return verdict


def _tags(work: Workspace, candidate: Candidate, logged: Evaluation, verdict: Verdict) -> dict[str, str]:
    resolution = ladder.resolve(verdict, logged, work.use_case)
    judge = work.use_case.judge_model
    return {
        **(
            {"leastwise.use_case.judge": f"{judge.uri} ({'gates' if work.use_case.is_judged else 'reports'})"}
            if judge
            else {}
        ),
        "leastwise.venue": candidate.venue,
        "leastwise.resolution": resolution or "",
        "leastwise.sure": "no" if resolution == "pass" else "yes",
        "leastwise.open_weights": "yes" if candidate.weights or work.model(candidate.model).is_open else "no",
    }


def _reuse(work: Workspace, done: Run, stage: Stage, key: str) -> str:
    """Link a finished stage run of an earlier climb: nothing is measured or paid twice."""
    if done.data.tags.get("mlflow.parentRunId") == work.climb.run_id:
        return str(done.info.run_id)
    run_id = tracking.link_reused(work.client, work.climb, done)
    requirements = work.use_case.gate_requirements
    logged, verdict = run_record.judge_logged(work.client, run_id, requirements)
    grounded = retrieval_figures.logged(work.client.get_run(run_id))
    table = console.gate_table(logged, verdict, requirements, work.use_case.alpha) + grounded.note
    console.publish_markdown(f"gate-{stage}", table)
    console.show_stage(stage, logged, verdict, requirements, reused=True, more=grounded.sentence)
    return run_id


STAGE_NUMBER = {stage: number for number, stage in enumerate(LADDER, 1)}
