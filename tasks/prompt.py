"""Stage 1: every allowed model, cheapest first, unconstrained and constrained, with a cascade where cost is
required.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from leastwise.answering.prompts import first_prompt, fixed_shots
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.cascade_offer import CascadeOffer
from leastwise.evaluating.search.offer import SearchOffer
from leastwise.evaluating.stage import evaluate_stage
from leastwise.evaluating.tries import Offer
from leastwise.ladder.candidate import Candidate
from leastwise.run_id import RunId
from leastwise.use_case import Stage
from leastwise.use_case.model import Model
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace


@task(name="evaluate")
def evaluate_prompt(climb: RunId) -> RunId:
    """Measure the stage and log it by the best of its candidates."""
    work = open_workspace(climb)
    return show_result(work, evaluate_stage(work, "prompt", prompt_tries(work)))


def prompt_tries(work: Workspace) -> list[Candidate | Offer]:
    """The prompt candidates, with a cascade of the cheapest model and the dearest before any but the cheapest
    is tried.
    """
    candidates = prompt_candidates(work)
    if work.use_case.searches:
        return searches_from(work, "prompt", candidates)
    plain = [each for each in candidates if each.prompt and not each.prompt.constrained]
    if len(plain) < 2 or not work.use_case.offers_cascades:
        return list(candidates)
    cheapest = [each for each in candidates if each.model == plain[0].model]
    dearer = [each for each in candidates if each.model != plain[0].model]
    return [*cheapest, CascadeOffer("prompt", plain[0], plain[-1]), *dearer]


def searches_from(work: Workspace, stage: Stage, candidates: Sequence[Candidate]) -> list[Candidate | Offer]:
    """A search for each model from its unconstrained candidate, what the stage's may cost in equal parts; in `prompt` a
    cascade of the cheapest model and the dearest after the cheapest.
    """
    starts = [work.at_its_engine(each) for each in candidates if each.prompt and not each.prompt.constrained]
    offers: list[Candidate | Offer] = [SearchOffer(stage, start, 1 / len(starts)) for start in starts]
    if stage == "prompt" and len(starts) > 1 and work.use_case.offers_cascades:
        offers.insert(1, CascadeOffer(stage, starts[0], starts[-1]))
    return offers


def prompt_candidates(work: Workspace) -> list[Candidate]:
    """Every allowed model, cheapest first, unconstrained and constrained; a decision model in its one way."""
    task_, settings = work.use_case.task, work.use_case.retrieval
    shots = fixed_shots(task_, work.tables.get("train"), settings.fixed_examples)
    ways = (False, True) if task_.can_be_constrained else (False,)
    return [
        Candidate(
            stage="prompt",
            model=model.uri,
            revision=work.catalogue.asked_revision(model),
            venue=model.venue,
            prompt=first_prompt(model, task_, shots, constrained),
        )
        for model in _cheapest_first(work)
        for constrained in (ways if not model.decides else (False,))
    ]


def _cheapest_first(work: Workspace) -> list[Model]:
    allowed = [model for model in work.use_case.models.candidates if work.use_case.may_be_sent_to(model)]
    prices = {model.uri: work.catalogue.price(model.uri) for model in allowed}
    return sorted(allowed, key=lambda model: prices[model.uri].input + 0.25 * prices[model.uri].output)
