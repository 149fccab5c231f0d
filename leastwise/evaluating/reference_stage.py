"""Row 0 of a climb: the no-LLM reference on the gate's own rows, and where it may end the climb its judgement.

With `reference: report` the references answer in process: quality and adherence are measured, latency and cost are not,
and no server is started. With `reference: stop` every requirement is measured as a stage's would be: the reference is
served as it would run in production and asked over HTTP. It does not decide whether the climb stops (`leastwise.ladder`
does, from what is logged), and an UNDECIDED reference never stops it: only a sure PASS does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from leastwise.answering import answering
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating import evaluation
from leastwise.evaluating.gate_tests import Tests
from leastwise.evaluating.stage import measure_candidate
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.ladder.gate import Evaluation, judge
from leastwise.models import reference, reference_student
from leastwise.models.reference import Reference
from leastwise.models.student import fit_dev_threshold
from leastwise.record import run_record, tracking
from leastwise.rows.gate_rows import unit_count, unit_scores
from leastwise.training import distillation
from leastwise.use_case import UseCase
from tasks import console

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ANSWERED_IN_PROCESS = frozenset({"quality", "adherence"})
SERVED = "embeddings + logistic regression"


def measure(work: Workspace) -> None:
    """Fit the references, measure them on the gate rows and log row 0; judged where it may end the climb.

    Where `reference: stop` has to be served to be judged (latency, cost, out-of-scope or shifted inputs are required),
    the logistic regression stands for the references, even if another did better on dev: it alone can be served.
    Otherwise the best on dev does. The table shows every reference's quality over the whole gate set either way. Raises
    RuntimeError where too many requests were lost: nothing is logged, and the climb can be resumed.
    """
    fits = _fits(work)
    rows, set_hash = work.gate_rows("gate")
    scores = {fit.name: _scores(fit, rows) for fit in fits}
    quality = {name: sum(each) / len(each) for name, each in scores.items()}
    obstacle = _obstacle(work.use_case)
    if _needs_server(work.use_case) and obstacle is None:
        _judge_served(work, next(fit for fit in fits if fit.name == SERVED), quality)
        return
    best = _best(fits).name
    measured = _in_process(work, best, scores[best], rows, set_hash)
    if work.use_case.reference == "stop" and obstacle:
        measured = measured.model_copy(update={"error": obstacle})
    tracking.log_reference(work.client, work.climb, measured, console.reference_table(quality), quality)
    console.show_reference(quality, measured, work.use_case.gate_requirements)
    if measured.error:
        log.info(f"the reference does not end this climb: {measured.error}")


def confirm(work: Workspace, rows: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Plain quality and adherence of the reference that ended the climb on `rows`, each with its n, as it was judged."""
    if _needs_server(work.use_case):
        run = tracking.reference_runs(work.client, work.climb)[0]
        with answering.open_answerer(work, run_record.load_candidate(work.client, run.info.run_id)) as answerer:
            return evaluation.measure_all(work.use_case, answerer, rows, console.show_progress)
    quality = unit_scores(rows, _scores(_best(_fits(work)), rows))
    return {"quality": (float(quality.mean()), quality.size), "adherence": (1.0, quality.size)}


def _best(fits: list[Reference]) -> Reference:
    return max(fits, key=lambda fit: fit.dev_accuracy)


def _fits(work: Workspace) -> list[Reference]:
    assert work.encoder is not None
    seed = work.use_case.training.seed
    return reference.fit_reference(
        work.tables.need("train"),
        _dev(work),
        work.encoder,
        work.home / "embeddings",
        seed,
        on_chunk=console.show_embedding,
    )


def _dev(work: Workspace) -> pd.DataFrame:
    dev = work.tables.get("dev")
    return dev if dev is not None else work.tables.need("train")


def _scores(fit: Reference, rows: pd.DataFrame) -> list[float]:
    return [float(answer == want) for answer, want in zip(fit.predict(list(rows["text"])), rows["label"], strict=True)]


def _needs_server(use_case: UseCase) -> bool:
    return use_case.reference == "stop" and not ANSWERED_IN_PROCESS.issuperset(use_case.requirements.bounds)


def _obstacle(use_case: UseCase) -> str | None:
    """Why the reference could not run in production here, so that it must not end the climb; None where it could."""
    limits = use_case.requirements.residency
    if limits and "self_host" not in limits.venues:
        return "the reference runs on own machines, and residency does not list the venue self_host"
    return (
        None
        if use_case.hosting.capacity
        else "hosting.capacity is false: there are no machines to run the reference on"
    )


def _in_process(work: Workspace, name: str, scores: list[float], rows: pd.DataFrame, set_hash: str) -> Evaluation:
    """Quality and adherence over the whole gate set; whatever else is required is not measured, which is ERROR."""
    tests = Tests(
        work.use_case, work.alphas, None, dict.fromkeys(ANSWERED_IN_PROCESS, unit_count(rows))
    )  # no cost: None
    tests.count(ANSWERED_IN_PROCESS, len(rows), 0)
    tests.add("quality", unit_scores(rows, scores))
    tests.add("adherence", unit_scores(rows, [1.0] * len(rows)))
    return Evaluation(stage="reference", candidate=name, gate_hash=set_hash, measurements=tests.measurements())


def _judge_served(work: Workspace, fit: Reference, quality: dict[str, float]) -> None:
    """Serve the reference, evaluate it as a stage is evaluated and log it; an earlier climb's answer is linked."""
    candidate = _candidate(work, fit)
    key, requirements = content_key("reference", work.question, candidate.key), work.use_case.gate_requirements
    reused = _reused(work, key)
    run_id = reused or _log(work, candidate, fit.name, key, _evaluate(work, candidate), quality)
    logged, verdict = run_record.judge_logged(work.client, run_id, requirements)
    console.show_reference(quality, logged.model_copy(update={"candidate": fit.name}), requirements)
    console.show_stage("reference", logged, verdict, requirements, reused=reused is not None)


def _candidate(work: Workspace, fit: Reference) -> Candidate:
    """The reference on an own machine, as data; it declines only where `ood_decline` is required.

    The threshold is fitted on dev, where it may decline as many in-scope texts as a student may; out-of-scope inputs are
    the gate's and never tuned on.
    """
    task, embedder = work.use_case.task, work.use_case.models.embedder
    assert embedder is not None
    decline, below = None, 0.0
    if "ood_decline" in work.use_case.requirements.bounds:
        share = distillation.StudentSettings().max_false_decline
        threshold = fit_dev_threshold(fit.probabilities, list(_dev(work)["text"]), (), share)
        decline, below = task.decline_label, threshold.decline_below
    revision = content_key(fit.key, str(decline), str(below))
    out = work.home / "references" / revision
    if not out.exists():
        reference_student.as_student(fit, out, decline_label=decline, decline_below=below)
    return Candidate(
        stage="reference",
        model=embedder,
        revision=work.revision(embedder),
        venue="self_host",
        weights=Weights(kind="student", uri=out.as_uri(), revision=revision),
        decline_below=below if decline else None,
    )


def _evaluate(work: Workspace, candidate: Candidate) -> evaluation.Measured:
    log.info("serving the reference as it would run in production")
    measured = measure_candidate(work, candidate)
    verdict = judge(measured.evaluation, work.use_case.gate_requirements)
    if (
        verdict.outcome == "ERROR"
    ):  # no evidence must not buy a stage (rule 4): nothing is logged, so that a rerun tries again
        raise RuntimeError(f"the reference could not be measured: {verdict.reason}; run again to resume the climb")
    return measured


def _log(
    work: Workspace, candidate: Candidate, name: str, key: str, measured: evaluation.Measured, quality: dict[str, float]
) -> str:
    """Log a measured reference and its verdict, judged from what was read back; gives back its run id.

    The key comes last: a run that has one is whole and may be linked by a later climb.
    """
    client, requirements = work.client, work.use_case.gate_requirements
    table = console.reference_table(quality)
    tracking.log_reference(client, work.climb, measured.evaluation, table, quality)
    run = tracking.reference_runs(client, work.climb)[0]
    run_id = str(run.info.run_id)
    run_record.log_candidate(client, run, candidate)
    run_record.log_examples(client, run_id, measured)
    run_record.log_figures(client, run_id, {k: v for k, v in measured.totals.items() if k.startswith("consistency.")})
    logged, verdict = run_record.judge_logged(client, run_id, requirements)
    note = f"{table}\n\n{console.gate_table(logged, verdict, requirements, work.use_case.alpha)}"
    tags = {"leastwise.venue": candidate.venue, "leastwise.open_weights": "yes", "leastwise.key": key}
    run_record.log_verdict(client, run_id, console.run_name("reference", verdict, logged, name), verdict, tags, note)
    return run_id


def _reused(work: Workspace, key: str) -> str | None:
    """This climb's link to an earlier climb's run of the same key: what was measured keeps its figures (rule 8)."""
    done = tracking.finished(work.client, work.climb.experiment_id, key, kind="reference")
    return tracking.link_reused(work.client, work.climb, done) if done else None
