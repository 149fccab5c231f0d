"""What must hold of a proposed candidate before the first call is paid, each as a check that raises BadInput.

It looks at what is said and at files; it asks no model. What must hold of the use case itself is checked beside it
(`tasks.session.checks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from leastwise.answering.prompts import check_room_of
from leastwise.answering.reading.labels import check_decided
from leastwise.answering.retrieval import retriever_of
from leastwise.answering.servers import check_servable
from leastwise.endpoints.habits import drops_effort
from leastwise.errors import BadInput, Check, problems_of
from leastwise.evaluating.proposal.reading import Proposal
from leastwise.ladder.candidate import Candidate, Prompt, Retriever
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.money.machine_cost import hosting_hour_usd
from leastwise.record.client import connect
from leastwise.record.handover.handover import Handover
from leastwise.rows.near_duplicates import normalised
from leastwise.rows.personal_data import masked
from leastwise.rows.question import Question
from leastwise.stores import storage
from leastwise.stores.made.naming import is_made
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import system_prompt

JUDGED_TABLES = ("gate", "test", "out_of_scope", "shifted")
LEAST_QUOTED = 25  # characters: shorter rows ("reset my password") are words that any prompt may have


def checks_of(proposal: Proposal, question: Question, catalogue: Catalogue) -> list[Check]:
    """Every check of a proposal, of the candidate that is asked first in a cascade too."""
    candidate, source = proposal.candidate, proposal.source
    use_case = question.use_case
    checks: list[Check] = [partial(each, candidate, source, use_case) for each in (_check_stage, _check_leave)]
    for place, each in parts_of(candidate):
        where = f"{source}: {place}" if place else f"{source}: "
        checks += [
            partial(_check_model, each, where, catalogue, is_registered=proposal.is_registered),
            partial(_check_residency, each, where, use_case),
            partial(_check_prompt, each, where, use_case),
            partial(_check_reading, each, where, catalogue),
            partial(_check_apart, each.prompt, where, question),
            partial(_check_retriever, each.retriever, where, question),
            partial(_check_guard, each, where, question),
            partial(_check_weights, each, where, catalogue.home),
            partial(_check_room, each, question, catalogue),
        ]
    return checks


def parts_of(candidate: Candidate, place: str = "") -> Iterator[tuple[str, Candidate]]:
    """The candidate and, in a cascade, those that are asked before it, each with its place in a file."""
    yield place, candidate
    if candidate.cascade:
        yield from parts_of(candidate.cascade.first, f"{place}cascade.first.")


def _check_stage(candidate: Candidate, source: str, use_case: UseCase) -> None:
    if candidate.stage == "reference":
        raise BadInput(f"{source}: stage: the reference without an LLM is measured by a climb; name a candidate")
    if candidate.stage == "cache" and not (candidate.cache.exact or candidate.cache.provider):
        raise BadInput(
            f"{source}: stage: cache is judged on replayed traffic in place of the gate rows, and this candidate "
            "caches nothing; write the stage it is of (prompt, rag, ...), or say what is cached"
        )
    if candidate.stage == "cache" and not use_case.data.traffic:
        raise BadInput(
            f"{source}: stage: cache is judged on replayed traffic, and data.traffic is missing; add it, or write "
            "cache: {provider: false, exact: false}"
        )


def _check_leave(candidate: Candidate, source: str, use_case: UseCase) -> None:
    """Own machines are paid by the hour while they are measured, and with nobody to ask leave stands in the file."""
    usd = hosting_hour_usd(use_case)
    if candidate.stage == "self_host" and usd > 0 and use_case.approval("self_host", usd) != "granted":
        raise BadInput(
            f"{source}: stage: self_host needs approval (an hour of a machine is ${usd:.4g}) and a gate asks nobody; "
            "set approvals: {self_host: granted} in the use case"
        )


def _check_model(candidate: Candidate, where: str, catalogue: Catalogue, *, is_registered: bool) -> None:
    """The model is one the use case names and may be asked, where it says and as it is today."""
    use_case, uri = catalogue.use_case, candidate.model
    model = catalogue.model(uri) if catalogue.is_tuned(uri) else catalogue.named(uri)
    if model is None:
        if candidate.weights and (is_registered or uri in _made_of(use_case)):
            return
        known = ", ".join(each.uri for each in use_case.models.candidates)
        raise BadInput(
            f"{where}model: {uri} is not a model of {use_case.name} ({known}); add it to models.candidates, with its "
            "price, or name one of these"
        )
    if not use_case.may_be_sent_to(model):
        raise BadInput(f"{where}model: requirements.residency allows no request to {uri}; name another model")
    own = {model.venue, *(("managed", "self_host") if candidate.weights else ())}
    own |= {"self_host"} if model.is_open else set()
    if candidate.venue not in own:
        raise BadInput(f"{where}venue: {uri} answers at {model.venue}, not {candidate.venue}; leave venue out")
    is_student = candidate.weights is not None and candidate.weights.kind == "student"
    if catalogue.is_served_here(candidate) and not is_student:
        check_servable(uri, catalogue.home, model.context_tokens, candidate.engine)
    today = catalogue.asked_revision(model)
    if candidate.revision != today:
        raise BadInput(
            f"{where}revision: {candidate.revision or 'none'} is written, and {uri} is {today or 'without one'} today: "
            "what was answered would count for the wrong model; leave revision out of a file that says what differs"
        )


def _check_residency(candidate: Candidate, where: str, use_case: UseCase) -> None:
    """Weights that a stage made answer in an allowed venue too."""
    limits = use_case.requirements.residency
    if limits and candidate.venue not in limits.venues:
        raise BadInput(
            f"{where}venue: requirements.residency allows {' and '.join(limits.venues)}, not {candidate.venue}; name "
            "an allowed one"
        )


def _made_of(use_case: UseCase) -> set[str]:
    """What trained weights may sit on beside the listed models: the base of students."""
    student, models = use_case.training.student, use_case.models
    own = student.uri if student.kind == "causal" else None
    return {uri for uri in (models.student, own) if uri}


def _check_prompt(candidate: Candidate, where: str, use_case: UseCase) -> None:
    prompt, is_student = candidate.prompt, candidate.weights is not None and candidate.weights.kind == "student"
    if prompt is not None and is_student:
        raise BadInput(f"{where}prompt: an encoder student reads none, so it would change nothing; leave it out")
    if prompt is None:
        if not is_student:
            raise BadInput(f"{where}prompt: is missing; add prompt: {{system: ...}}")
        return
    if prompt.constrained and not use_case.task.can_be_constrained:
        raise BadInput(f"{where}prompt.constrained: answers of this task cannot be constrained; write false")


def _check_reading(candidate: Candidate, where: str, catalogue: Catalogue) -> None:
    """Its model offers the reading; where the model itself is refused, that is said already."""
    model, effort = catalogue.named(candidate.model), candidate.prompt.reasoning if candidate.prompt else None
    if model is None:
        return
    try:
        check_decided(catalogue, candidate)
    except BadInput as error:
        raise BadInput(f"{where}{error}") from None
    if effort not in (None, "none") and drops_effort(model):
        raise BadInput(f"{where}prompt.reasoning: {model.uri} takes no effort of thinking; leave it out")


def _check_apart(prompt: Prompt | None, where: str, question: Question) -> None:
    """No row that is judged stands in the words around it, as an example or quoted: that would measure memory."""
    if prompt is None:
        return
    mask, own = question.use_case.data.mask, normalised(system_prompt(question.use_case.task))
    system = f" {normalised(masked(prompt.system, mask))} "
    shots = [normalised(masked(shot.text, mask)) for shot in prompt.shots]
    for table in JUDGED_TABLES:
        frame = question.tables.get(table)
        for row_id, text in zip(frame["id"], frame["text"], strict=True) if frame is not None else ():
            said = normalised(str(text))
            is_quoted = len(said) >= LEAST_QUOTED and f" {said} " in system and said not in own
            if not is_quoted and said not in shots:
                continue
            place = "prompt.system" if is_quoted else f"prompt.shots.{shots.index(said)}"
            raise BadInput(
                f"{where}{place}: holds row {row_id} of data.{table}, so the gate would measure memory; take examples "
                "of data.train"
            )


def _check_retriever(retriever: Retriever | None, where: str, question: Question) -> None:
    if retriever is None:
        return
    data, embedder = question.use_case.data, question.use_case.models.embedder
    lacking = {"documents": retriever.documents and not data.documents, "train": retriever.examples and not data.train}
    for table, field in (("documents", "documents"), ("train", "examples")):
        if lacking[table]:
            raise BadInput(
                f"{where}retriever.{field}: {getattr(retriever, field)} are wanted and data.{table} is missing; add "
                "it to the use case, or write 0"
            )
    if retriever.embedder != embedder:
        raise BadInput(
            f"{where}retriever.embedder: {retriever.embedder} is not models.embedder of the use case "
            f"({embedder or 'none'}), with which rows are indexed; name that, or change the use case"
        )
    if retriever.index != retriever_of(question).index:
        raise BadInput(
            f"{where}retriever.index: {retriever.index} is of other rows than data.train and data.documents hold now; "
            "leave index out of a file that says what differs"
        )


def _check_guard(candidate: Candidate, where: str, question: Question) -> None:
    guard = candidate.guard
    if guard is None or guard.score != "distance":
        return
    if guard.embedder != question.use_case.models.embedder:
        raise BadInput(f"{where}guard.embedder: {guard.embedder or 'none'} is not models.embedder; name that one")
    if guard.examples != question.tables.hashes.get("train"):
        raise BadInput(
            f"{where}guard.examples: its threshold was chosen by other rows than data.train holds; write guard: null"
        )


def _check_weights(candidate: Candidate, where: str, home: Path) -> None:
    """Weights are where the candidate says, and are what it says."""
    made = candidate.weights
    if made is None:
        return
    if "://" not in candidate.model:
        raise BadInput(f"{where}weights: {candidate.model} is no open model, so none of ours belong to it; write null")
    if not is_made(made.uri) and not storage.exists(made.uri):
        raise BadInput(f"{where}weights.uri: nothing is at {made.uri}; put the weights there, or write weights: null")
    directory = Handover(connect(), home).weights_dir(made)
    found = weights.directory_hash(directory)
    if made.revision != found and not (is_made(made.uri) and made.revision == directory.name):
        raise BadInput(f"{where}weights.revision: {made.revision} is written, and {made.uri} holds {found}; correct it")


def _check_room(candidate: Candidate, question: Question, catalogue: Catalogue) -> None:
    """Every judged row leaves room beside the prompt; where the model itself is refused, that is said already."""
    model = catalogue.named(candidate.model)
    if model is None or problems_of([partial(catalogue.asked_revision, model)]):
        return
    check_room_of(question, catalogue, candidate)
