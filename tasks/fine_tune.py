"""Stage 4: an adapter trained on the examples, here or at a host, behind a short prompt."""

from __future__ import annotations

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt, Retriever, Weights
from leastwise.run_id import RunId
from leastwise.training.hosted.at_host import AtHost
from leastwise.training.hosted.first_answer import check_answers_itself
from leastwise.training.hosted.here import Here
from leastwise.training.hosted.trainer import HostedModel, Made, Trainer
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.prompts import trained_prompt
from tasks.session.artifacts import publish_markdown
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace


@task(name="fine-tune")
def fine_tune_model(climb: RunId) -> Made:
    """Train the examples of this use case where it says, here or at a host, and say what came of it."""
    work = open_workspace(climb)
    tuned = trainer_of(work.use_case).train(work, "fine_tune")
    if tuned.search:
        publish_markdown("training-search", tuned.search)
    return tuned.made


def trainer_of(use_case: UseCase) -> Trainer:
    """Who trains for `fine_tune`: a host, where the use case names one (it was left out where GPUs are at hand)."""
    managed = use_case.training.managed
    return AtHost(managed) if managed else Here()


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


def _train(climb: RunId, stage: Stage, base: str | None) -> Weights:
    trained = Here(base).adapter(open_workspace(climb), stage)
    if trained.search:
        publish_markdown("training-search", trained.search)
    return trained.weights


@task(name="evaluate")
def evaluate_fine_tune(climb: RunId, made: Made) -> RunId:
    """Measure the stage and log it."""
    work = open_workspace(climb)
    candidate = tuned_candidate(work, "fine_tune", made)
    if isinstance(made, HostedModel):
        check_answers_itself(work, candidate)
    return show_result(work, evaluate_stage(work, "fine_tune", [candidate]))


def tuned_candidate(work: Workspace, stage: Stage, made: Made, further: str | None = None) -> Candidate:
    """What was trained behind a short prompt: retrieved examples go, documents stay if the parent needs them.

    `further` is the URI of the further pre-trained base that weights sit on, if it is not the use case's own.
    """
    parent = work.run.parent(work.use_case.gate_requirements)
    bare = _of_host(stage, made) if isinstance(made, HostedModel) else _of_weights(work, stage, made, further)
    around = {
        "prompt": Prompt(system=trained_prompt(work.use_case)),
        "retriever": _documents_only(parent.retriever) if parent else None,
        "parent": parent.key if parent else None,
    }
    return bare.model_copy(update=around)


def _of_host(stage: Stage, made: HostedModel) -> Candidate:
    return Candidate(stage=stage, model=made.uri, revision=made.revision, venue="managed")


def _of_weights(work: Workspace, stage: Stage, weights: Weights, further: str | None) -> Candidate:
    base = work.catalogue.base()
    uri = further or base.uri
    return Candidate(stage=stage, model=uri, revision=work.revision(uri), venue=base.venue, weights=weights)


def _documents_only(retriever: Retriever | None) -> Retriever | None:
    if retriever is None or retriever.documents == 0:
        return None
    return retriever.model_copy(update={"examples": 0})
