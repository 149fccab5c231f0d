"""Stage 4: an adapter trained on the examples, behind a short prompt."""

from __future__ import annotations

from prefect import task

from leastwise.answering.servers import prove_servable
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt, Retriever, Weights
from leastwise.run_id import RunId
from leastwise.training.stage_weights import train_adapter
from leastwise.use_case import Stage
from leastwise.use_case.prompts import trained_prompt
from tasks.session.artifacts import publish_markdown
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace


@task(name="fine-tune")
def fine_tune_adapter(climb: RunId, base: str | None = None) -> Weights:
    """Train the adapter of this use case on its base (or on a further pre-trained one, by its URI) and hand it over.

    It is booked as `pretrain` where the base was further pre-trained by that stage, else as `fine_tune`.
    """
    return _train(climb, "pretrain" if base else "fine_tune", base)


@task(name="fine-tune")
def retrain_adapter(run_id: RunId, base: str | None) -> Weights:
    """Train the champion's adapter again, on the base it is for; always booked as `fine_tune`, whatever that
    base is.
    """
    return _train(run_id, "fine_tune", base)


def _train(run_id: RunId, stage: Stage, base: str | None) -> Weights:
    work = open_workspace(run_id)
    base_dir = work.model_dir(base) if base else work.catalogue.base_dir()
    prove_servable(work.home, base_dir, base or work.catalogue.base().uri)
    trained = train_adapter(work, stage, base_dir)
    if trained.search:
        publish_markdown("training-search", trained.search)
    return trained.weights


@task(name="evaluate")
def evaluate_fine_tune(climb: RunId, weights: Weights) -> RunId:
    """Measure the stage and log it."""
    work = open_workspace(climb)
    candidate = tuned_candidate(work, "fine_tune", weights)
    return show_result(work, evaluate_stage(work, "fine_tune", [candidate]))


def tuned_candidate(work: Workspace, stage: Stage, weights: Weights, further: str | None = None) -> Candidate:
    """Trained weights behind a short prompt: retrieved examples go, documents stay if the parent needs them.

    `further` is the URI of the further pre-trained base they sit on, if it is not the use case's own.
    """
    parent, base = work.run.parent(work.use_case.gate_requirements), work.catalogue.base()
    return Candidate(
        stage=stage,
        model=further or base.uri,
        revision=work.revision(further or base.uri),
        venue=base.venue,
        prompt=Prompt(system=trained_prompt(work.use_case)),
        retriever=_documents_only(parent.retriever) if parent else None,
        weights=weights,
        parent=parent.key if parent else None,
    )


def _documents_only(retriever: Retriever | None) -> Retriever | None:
    if retriever is None or retriever.documents == 0:
        return None
    return retriever.model_copy(update={"examples": 0})
