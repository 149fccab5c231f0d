"""Stage 5 (Level 4): the base further pre-trained on the documents, and the adapter on it."""

from __future__ import annotations

import logging

from prefect import task

from leastwise.answering.servers import prove_servable
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Weights
from leastwise.run_id import RunId
from leastwise.training.stage_weights import pretrain_base
from tasks.fine_tune import tuned_candidate
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace

log = logging.getLogger("leastwise.tasks.pretrain")


@task(name="continue pre-training")
def continue_pretraining(climb: RunId) -> str:
    """Continue pre-training of the base on the documents; gives back the new base's URI."""
    work = open_workspace(climb)
    prove_servable(work.home, work.catalogue.base_dir(), work.catalogue.base().uri)
    return pretrain_base(work).uri


@task(name="evaluate")
def evaluate_pretrain(climb: RunId, weights: Weights, base: str) -> RunId:
    """Measure the stage and log it."""
    work = open_workspace(climb)
    candidate = tuned_candidate(work, "pretrain", weights, base)
    return show_result(work, evaluate_stage(work, "pretrain", [candidate]))


@task(name="compare with the fine-tuned base")
def compare_with_fine_tuned(climb: RunId, run_id: RunId) -> None:
    """What Level 4 did to the task: the quality of the stage `fine_tune` below, where it was measured, beside this
    one's.

    Both are the figures of their gates, each on as many rows as its verdict took; no test is made of the difference.
    """
    work = open_workspace(climb)
    run, history = work.run.stage(run_id), work.run.history(work.use_case.gate_requirements)
    below = next((record for record in history if record.stage == "fine_tune" and record.evaluation), None)
    before = below.evaluation.measurements.get("quality") if below and below.evaluation else None
    after = run.evaluation().measurements.get("quality")
    if before is None or after is None:
        log.info("no fine-tuned base below was measured: what pre-training did to quality is not known")
        return
    run.write({"quality.before": before.estimate, "quality.before.n": before.n})
    log.info(f"quality {before.estimate:.3f} (fine_tune, n={before.n}) → {after.estimate:.3f} (n={after.n})")
