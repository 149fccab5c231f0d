"""What a search varies, one axis after another in the order of `AXES`, each from the best candidate so far.

Examples come after it: how few are enough is told by how the answer is read (as written, two of the nearest were far
behind four; by likelihood they were not). How they and the documents are found comes last. A new axis is a function
from where one stands to its variants, put into `AXES`. It asks and scores nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from leastwise.answering.prompts import searched_shots
from leastwise.answering.reading.labels import begin_apart, why_not_decided
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.habits import efforts_of
from leastwise.evaluating.search import retrieval_axes
from leastwise.evaluating.search.axis import Axis, Variant
from leastwise.evidence.choosing.calibration import Calibration
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.money.search_cost import NEAREST
from leastwise.use_case.prompts import decision_prompt, short_prompt, system_prompt

CALIBRATED = Calibration(log_prior={"": 0.0})  # stands for one that is fitted on the rows that were answered


def _prompt_of(candidate: Candidate) -> Prompt:
    assert candidate.prompt is not None
    return candidate.prompt


def _with(candidate: Candidate, **changes: object) -> Candidate:
    prompt = Prompt.model_validate(_prompt_of(candidate).model_dump() | changes)
    return candidate.model_copy(update={"prompt": prompt})


def _format(work: Workspace, at: Candidate) -> Axis:
    """Turns of a chat, or a plain text to go on with, which weights know from before they were taught to chat."""
    chat = Variant("chat", at)
    if at.decides:
        return Axis("format", (Variant("decision", at),))
    if work.use_case.task.answers is None:
        return Axis("format", (chat,), (("completion", "the answers are no labels"),))
    if not work.catalogue.is_served_here(at):
        return Axis("format", (chat,), (("completion", "only open weights served here go on with a plain text"),))
    return Axis("format", (chat, Variant("completion", _with(at, format="completion"))))


def _shots(work: Workspace, at: Candidate) -> Axis:
    """None, or one of several sets that are the same for every request; with a retriever how many of the nearest."""
    if at.retriever is not None and at.retriever.examples:
        counts = sorted({*NEAREST, at.retriever.examples})
        nearest = (
            Variant(
                f"nearest {k}", at.model_copy(update={"retriever": at.retriever.model_copy(update={"examples": k})})
            )
            for k in counts
        )
        return Axis("shots", tuple(nearest))
    none = Variant("none", _with(at, shots=()))
    if at.retriever is not None:
        return Axis("shots", (none,))
    sets = searched_shots(work.use_case, work.tables.get("train"))
    if not sets:
        return Axis("shots", (none,), (("fixed", "there are none: data.train, or retrieval.fixed_examples"),))
    named = [f"fixed {len(sets[0])}", *(f"fixed {len(each)}, drawn {at}" for at, each in enumerate(sets[1:], 1))]
    fixed = [
        Variant(name, _with(at, shots=[shot.model_dump() for shot in each]))
        for name, each in zip(named, sets, strict=True)
    ]
    return Axis("shots", (*fixed, none))


def _reading(work: Workspace, at: Candidate) -> Axis:
    """What the model writes, freely or held to the format; or which label it finds likeliest, calibrated or not."""
    task, form = work.use_case.task, _prompt_of(at).format
    if at.decides:
        return Axis("reading", _both("decide", at))
    variants = [Variant("generate", at)]
    if form == "chat" and task.can_be_constrained:
        variants.append(Variant("constrained", _with(at, constrained=True)))
    left_out: list[tuple[str, str]] = []
    if why := _no_likelihood(work, at):
        left_out.append(("likelihood", why))
    else:
        variants += _both("likelihood", _with(at, reading="likelihood", constrained=False))
    if why := why_not_decided(work.catalogue, at):
        left_out.append(("decide", why))
    else:
        words = {"system": decision_prompt(task), "format": "chat", "reading": "decide", "constrained": False}
        variants += _both("decide", _with(at, **words))
    return Axis("reading", tuple(variants), tuple(left_out))


def _both(name: str, likely: Candidate) -> tuple[Variant, Variant]:
    """A reading of likelihoods as they are, and divided by the labels' mean over dev."""
    calibrated = _with(likely, calibration=CALIBRATED.model_dump())
    return Variant(name, likely), Variant(f"{name} / class prior", calibrated)


def _no_likelihood(work: Workspace, at: Candidate) -> str:
    """Why labels' likelihoods cannot be read here; empty where they can."""
    labels = work.use_case.task.answers
    if labels is None:
        return "the answers are no labels"
    if not work.catalogue.is_served_here(at) or at.engine != "llama.cpp":
        return "this endpoint does not tell probabilities of every label"
    if not begin_apart(work.tokenizer(at.model), labels, _prompt_of(at).format):
        return "labels begin with the same token"
    return ""


def _words(work: Workspace, at: Candidate) -> Axis:
    """Whether the labels are listed: where their likelihood is read, or examples show them, they may not need to be."""
    task, prompt = work.use_case.task, _prompt_of(at)
    if at.decides:
        return Axis("words", (Variant("labels as options", at),))
    listed = Variant("labels listed", _with(at, system=system_prompt(task)))
    if task.kind != "classification" or (prompt.format == "chat" and prompt.reading == "generate"):
        return Axis("words", (listed,))
    return Axis("words", (listed, Variant("instruction alone", _with(at, system=short_prompt(task)))))


def _reasoning(work: Workspace, at: Candidate) -> Axis:
    """Less thinking than the use case allows the model, down to none where it can do without."""
    model, here = work.catalogue.model(at.model), work.catalogue.effort(at)
    as_it_is = Variant(f"reasoning {here}" if here is not None else "as by itself", at)
    if _prompt_of(at).reading != "generate" or model.is_open or model.decides:
        return Axis("reasoning", (as_it_is,))
    efforts = [each for each in efforts_of(model) if each != here]
    if not efforts:
        return Axis("reasoning", (as_it_is,), (("less", "this model is not known to take an effort"),))
    if not model.reasoning_tokens:
        why = "reasoning on the model allows none; set it to the most that may be searched"
        return Axis("reasoning", (as_it_is,), (("more", why),))
    less = (Variant(f"reasoning {each}", _with(at, reasoning=each)) for each in efforts)
    return Axis("reasoning", (as_it_is, *less))


AXES: tuple[Callable[[Workspace, Candidate], Axis], ...] = (
    _format,
    _reading,
    _reasoning,
    _words,
    _shots,
    retrieval_axes.retrieval_mode,
    retrieval_axes.fusion_weight,
    retrieval_axes.late_interaction,
    retrieval_axes.chunk_length,
)
