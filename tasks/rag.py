"""Stage 2: the same models with retrieved examples in place of fixed ones, and with documents."""

from __future__ import annotations

from prefect import task

from leastwise.answering.retrieval import retriever_of
from leastwise.answering.retrieval_figures import with_chosen_mode
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.evaluating.tries import Offer
from leastwise.ladder.candidate import Candidate
from leastwise.run_id import RunId
from tasks.prompt import prompt_candidates, searches_from
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace


@task(name="evaluate")
def evaluate_rag(climb: RunId) -> RunId:
    """Measure the stage and log it by the best of its candidates."""
    work = open_workspace(climb)
    return show_result(work, evaluate_stage(work, "rag", rag_tries(work)))


def rag_tries(work: Workspace) -> list[Candidate | Offer]:
    """The rag candidates, or a search from each model's unconstrained one."""
    candidates = rag_candidates(work)
    return searches_from(work, "rag", candidates) if work.use_case.searches else list(candidates)


def rag_candidates(work: Workspace) -> list[Candidate]:
    """The prompt candidates, each with the use case's retriever."""
    parent = work.run.parent(work.use_case.gate_requirements)
    retriever = with_chosen_mode(work, retriever_of(work.question))
    return [
        candidate.model_copy(
            update={
                "stage": "rag",
                "prompt": candidate.prompt.model_copy(update={"shots": ()}),
                "retriever": retriever,
                "parent": parent.key if parent else None,
            }
        )
        for candidate in prompt_candidates(work)
        if candidate.prompt is not None
    ]
