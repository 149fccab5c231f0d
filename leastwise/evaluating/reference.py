"""Row 0 of a climb (rule 9): the no-LLM reference on the gate's own rows, and where it may end the climb its verdict.

With `reference: report` the references answer in process: quality and adherence are measured, latency and cost are not,
and no server is started. With `reference: stop` every requirement is measured as a stage's would be: the reference is
served as it would run in production and asked over HTTP. It does not decide whether the climb stops (`leastwise.ladder`
does, from what is logged), and an UNDECIDED reference never stops it: only a sure PASS does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.packing import referred
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.confirmation import measure_all
from leastwise.evaluating.gate_tests import GateTests
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evaluating.search.vote import dev_of, fitted_references
from leastwise.evaluating.stage import measure_candidate
from leastwise.ladder import Evaluation, Verdict, judge
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models.reference import REGRESSION, Reference
from leastwise.models.reference_student import as_student
from leastwise.models.student import MOST_FALSE_DECLINES, fit_dev_threshold
from leastwise.record.handover.before import as_before
from leastwise.record.reports import gate_table, reference_table, run_name
from leastwise.record.run import KEY, OPEN_WEIGHTS, VENUE, Figure
from leastwise.record.stage_run import StageRun
from leastwise.rows.gate_rows import first_units, unit_count, unit_scores
from leastwise.stores.made.naming import REFERENCES
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.ladder.measured import Measured

log = logging.getLogger(__name__)

MOST_GATE_ROWS = 20_000  # more tell little more of it and take hours to embed
SAID, SAID_ROWS = "said.json", 50  # what a registered reference is asked again
ANSWERED_IN_PROCESS = frozenset({"quality", "adherence"})


@dataclass(frozen=True)
class ReferenceResult:
    """Row 0: the quality of every reference, the one that stands for them, and its verdict where it was judged."""

    quality: Mapping[str, float]
    evaluation: Evaluation
    verdict: Verdict | None = None
    is_reused: bool = False


def measure_reference(work: Workspace) -> ReferenceResult:
    """Fit the references, measure them on the gate rows and log row 0; judged where it may end the climb.

    With `reference: stop` the logistic regression stands for the references, even if another did better on dev: it
    alone can be served, and what ends a climb must be. It is served to be judged where latency, cost, out-of-scope or
    shifted inputs are required. With `reference: report` the best on dev stands for them. The table shows every
    reference's quality over the whole gate set either way, or over its first 20,000 rows in seeded order; they are
    fitted on a seeded sample of at most 50,000 rows. Raises RuntimeError where too many requests were lost: nothing is
    logged, and the climb can be resumed.
    """
    fits, rows = fitted_references(work), _judged_rows(work)
    scores = {fit.name: _scores(fit, rows) for fit in fits}
    quality: dict[str, float] = {name: sum(each) / len(each) for name, each in scores.items()}
    obstacle = _obstacle(work.use_case)
    if _needs_server(work.use_case) and obstacle is None:
        return _judge_served(work, _standing(work, fits), quality)
    best = _standing(work, fits)
    evaluation = _in_process(work, best.name, scores[best.name])
    if work.use_case.reference == "stop" and obstacle:
        evaluation = evaluation.model_copy(update={"error": obstacle})
    _log_in_process(work, best, evaluation, quality, list(rows["text"][:SAID_ROWS]))
    return ReferenceResult(quality, evaluation)


def confirm_reference(work: Workspace, rows: pd.DataFrame) -> dict[str, Figure]:
    """Plain quality and adherence of the reference that ended the climb on `rows`, as it was judged."""
    run = work.run.reference_run()
    if _needs_server(work.use_case) and run is not None:
        with open_answerer(work, run.candidate()) as answerer:
            return measure_all(answerer, rows, ExactScorer(work.use_case.task), work.display)
    quality = unit_scores(rows, _scores(_standing(work, fitted_references(work)), rows))
    return {"quality": Figure(float(quality.mean()), quality.size), "adherence": Figure(1.0, quality.size)}


def _standing(work: Workspace, fits: list[Reference]) -> Reference:
    """Which of them stands for row 0."""
    if work.use_case.reference == "stop":
        return next(fit for fit in fits if fit.name == REGRESSION)
    return max(fits, key=lambda fit: fit.dev_accuracy)


def _judged_rows(work: Workspace) -> pd.DataFrame:
    return first_units(work.question.gate.rows, MOST_GATE_ROWS)


def _scores(fit: Reference, rows: pd.DataFrame) -> list[float]:
    labels = fit.predict(list(rows["text"]))
    return [float(label == expected) for label, expected in zip(labels, rows["label"], strict=True)]


def _needs_server(use_case: UseCase) -> bool:
    return use_case.reference == "stop" and not ANSWERED_IN_PROCESS.issuperset(use_case.requirements.bounds)


def _obstacle(use_case: UseCase) -> str | None:
    """Why the reference could not run in production here, so that it must not end the climb; None where it could."""
    limits = use_case.requirements.residency
    if limits and "self_host" not in limits.venues:
        return "the reference runs on own machines, and residency does not list the venue self_host"
    if use_case.hosting.capacity:
        return None
    return "hosting.capacity is false: there are no machines to run the reference on"


def _in_process(work: Workspace, name: str, scores: list[float]) -> Evaluation:
    """Quality and adherence over the whole gate set; whatever else is required is not measured, which is ERROR."""
    gate, rows = work.question.gate, _judged_rows(work)
    tests = GateTests(work.use_case, work.alphas, dict.fromkeys(ANSWERED_IN_PROCESS, unit_count(gate.rows)))
    tests.count(ANSWERED_IN_PROCESS, len(rows), 0)
    tests.add("quality", unit_scores(rows, scores))
    tests.add("adherence", unit_scores(rows, [1.0] * len(rows)))
    return Evaluation(stage="reference", candidate=name, gate_hash=gate.set_hash, measurements=tests.measurements())


def _log_in_process(
    work: Workspace, fit: Reference, evaluation: Evaluation, quality: Mapping[str, float], texts: list[str]
) -> None:
    """Row 0 and, where it may end the climb and can be served, the candidate with what it said to some texts."""
    run = work.run.log_reference(evaluation, reference_table(quality), quality, is_whole=False)
    if work.use_case.reference == "stop" and not evaluation.error:
        candidate = _candidate(work, fit)
        with referred(work, candidate) as bundle:
            run.log_candidate(candidate, work.use_case, bundle)
        said = zip(texts, fit.predict(texts), strict=True)
        run.log_text(json.dumps([{"set": "gate", "input": text, "answer": label} for text, label in said]), SAID)
    run.close()


def _judge_served(work: Workspace, fit: Reference, quality: Mapping[str, float]) -> ReferenceResult:
    """Serve the reference, evaluate it as a stage is evaluated and log it; an earlier climb's answer is linked (rule
    8).
    """
    candidate = _candidate(work, fit)
    keys = [
        content_key("reference", work.question.key, each.key) for each in (candidate, as_before(candidate, work.home))
    ]
    key, done = keys[0], work.run.finished(*keys, kind="reference")
    run = work.run.link(done) if done else _log(work, candidate, fit.name, key, _measured(work, candidate), quality)
    judged = run.judged(work.use_case.gate_requirements)
    named = judged.evaluation.model_copy(update={"candidate": fit.name})
    return ReferenceResult(quality, named, judged.verdict, is_reused=done is not None)


def _candidate(work: Workspace, fit: Reference) -> Candidate:
    """The reference on an own machine, as data; it declines only where `ood_decline` is required.

    The threshold is fitted on dev, where it may decline as many in-scope texts as a student may; out-of-scope inputs
    are the gate's and never tuned on.
    """
    task, embedder = work.use_case.task, work.use_case.models.embedder
    assert embedder is not None
    decline, below = None, 0.0
    if "ood_decline" in work.use_case.requirements.bounds:
        threshold = fit_dev_threshold(fit.probabilities, list(dev_of(work)["text"]), (), MOST_FALSE_DECLINES)
        decline, below = task.decline_label, threshold.decline_below
    revision = content_key(fit.key, str(decline), str(below))
    if not work.handover.bring(REFERENCES, revision):
        as_student(fit, work.home / REFERENCES / revision, decline_label=decline, decline_below=below)
    return Candidate(
        stage="reference",
        model=embedder,
        revision=work.catalogue.revision(embedder),
        venue="self_host",
        weights=Weights(kind="student", uri=work.handover.hand_over(REFERENCES, revision).uri, revision=revision),
        decline_below=below if decline else None,
    )


def _measured(work: Workspace, candidate: Candidate) -> Measured:
    log.info("serving the reference as it would run in production")
    measured = measure_candidate(work, candidate)
    verdict = judge(measured.evaluation, work.use_case.gate_requirements)
    if verdict.outcome == "ERROR":  # no evidence must not buy a stage (rule 4): nothing is logged, a rerun tries again
        raise RuntimeError(f"the reference could not be measured: {verdict.reason}; run again to resume the climb")
    return measured


def _log(
    work: Workspace, candidate: Candidate, name: str, key: str, measured: Measured, quality: Mapping[str, float]
) -> StageRun:
    """Log a measured reference and its verdict, judged from what was read back.

    Verdict and key come last, then it is closed: a run that is finished is whole and may be linked by a later climb.
    """
    requirements, table = work.use_case.gate_requirements, reference_table(quality)
    run = work.run.log_reference(measured.evaluation, table, quality, is_whole=False)
    with referred(work, candidate) as bundle:
        run.log_candidate(candidate, work.use_case, bundle)
    run.log_examples(measured)
    run.write({name: value for name, value in measured.totals.items() if name.startswith("consistency.")})
    judged = run.judged(requirements)
    note = f"{gate_table(judged.evaluation, judged.verdict, requirements, work.use_case.alpha)}\n\n{table}"
    tags = {VENUE: candidate.venue, OPEN_WEIGHTS: "yes", KEY: key}
    run.log_verdict(run_name("reference", judged.verdict, judged.evaluation, name), judged.verdict, tags, note)
    run.close()
    return run
