"""The label a model finds likeliest: which token each label begins with, and a reply read as the likeliest.

Labels must begin apart, for then the first token tells them all; what is written after it is of no account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.reply import Reply
from leastwise.errors import BadInput
from leastwise.evidence.choosing.calibration import Calibration, most_likely
from leastwise.ladder.candidate import Candidate, PromptFormat
from leastwise.models.catalogue import Catalogue
from leastwise.models.causal_model import tokenizer_of

MOST_LETTERS = 52  # the options that llama.cpp has letters for
AFTER: dict[PromptFormat, str] = {"chat": "", "completion": " "}  # what stands between prompt and answer


def first_tokens(tokenizer_dir: Path, labels: Sequence[str], form: PromptFormat) -> tuple[int, ...]:
    """The vocabulary's number of the token each label begins with. BadInput for labels that begin alike."""
    found = _first_tokens(str(tokenizer_dir), tuple(labels), form)
    shared = [label for label, token in zip(labels, found, strict=True) if found.count(token) > 1]
    if shared:
        raise BadInput(
            "prompt.reading: likelihood tells labels by their first token, and these begin alike: "
            f"{', '.join(map(repr, shared[:4]))}; set reading: generate, or name the labels apart"
        )
    return found


def begin_apart(tokenizer_dir: Path, labels: Sequence[str], form: PromptFormat) -> bool:
    """Whether the first token tells all labels from each other."""
    return len(set(_first_tokens(str(tokenizer_dir), tuple(labels), form))) == len(labels)


@lru_cache(maxsize=32)
def _first_tokens(tokenizer_dir: str, labels: tuple[str, ...], form: PromptFormat) -> tuple[int, ...]:
    tokenizer = tokenizer_of(tokenizer_dir)
    return tuple(tokenizer.encode(AFTER[form] + label, add_special_tokens=False)[0] for label in labels)


def why_not_decided(catalogue: Catalogue, candidate: Candidate) -> str:
    """Why a candidate cannot be read as the label it decides on, with the remedy; empty where it can."""
    labels, model = catalogue.use_case.task.answers, catalogue.model(candidate.model)
    if labels is None:
        return "the answers are no labels"
    if model.decides:
        return ""
    if not catalogue.is_served_here(candidate) or candidate.engine != "llama.cpp":
        return "only decision models (openai-decisions:, google-decisions:, system-one:) and llama.cpp here decide"
    if candidate.weights is not None:
        return "these weights were trained to write their labels"
    if len(labels) > MOST_LETTERS:
        return f"llama.cpp has letters for {MOST_LETTERS} options, and there are {len(labels)} labels"
    return ""


def check_decided(catalogue: Catalogue, candidate: Candidate) -> None:
    """BadInput for a candidate whose reading its model does not offer."""
    reading = candidate.prompt.reading if candidate.prompt else "generate"
    if reading == "decide" and (why := why_not_decided(catalogue, candidate)):
        raise BadInput(f"prompt.reading: decide: {why}; set reading: generate")
    if reading != "decide" and candidate.weights is None and catalogue.model(candidate.model).decides:
        raise BadInput(
            f"prompt.reading: {candidate.model} is a decision model and writes nothing; set reading: decide, without "
            "constrained"
        )


def as_read(candidate: Candidate, reply: Reply) -> Reply:
    """A reply with the label it comes to and that label's probability; any other candidate's as it is.

    What tells no likelihood stays as it was received: it is no label, and scored as such.
    """
    prompt = candidate.prompt
    if prompt is None or not prompt.tells_likelihoods or reply.error:
        return reply
    likely = likelihoods_in(reply.text)
    if likely is None:
        return reply
    label, probability = most_likely(likely, prompt.calibration or Calibration())
    return replace(reply, text=label, confidence=probability)
