"""The tokens of one request on average, from the lengths of a use case's texts. It prices none."""

from __future__ import annotations

import math

from pydantic import Field

from leastwise.money.token_counts import ENGLISH_CHARS_PER_TOKEN
from leastwise.part import Part
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.price import Usage
from leastwise.use_case.prompts import system_prompt, trained_prompt

MESSAGE_TOKENS = 5  # of a chat template, around each message
CONSTRAINT_TOKENS = 8  # `{"label": "…"}`


class Sizes(Part):
    """Mean lengths of what requests are made of, in characters of English that come to as many tokens."""

    text: float = Field(400.0, ge=0)
    answer: float = Field(20.0, ge=0)
    example: float = Field(420.0, ge=0, description="A labelled example, text and answer.")
    document: float = Field(1000.0, ge=0)


def request_usage(use_case: UseCase, stage: Stage, sizes: Sizes, constrained: bool = False) -> Usage:
    """The tokens of one request as that stage asks it; what never changes counts as cached for open weights."""
    retrieval, examples = use_case.retrieval, 0
    system = system_prompt(use_case.task)
    fixed = retrieval.fixed_examples if stage == "prompt" and use_case.data.train else 0
    retrieved = 0.0
    if stage in ("rag", "cache"):
        examples = retrieval.examples if use_case.data.train else 0
        retrieved = (retrieval.documents if use_case.data.documents else 0) * sizes.document
    if stage in ("fine_tune", "pretrain"):
        system = trained_prompt(use_case)
    stable = tokens_of(len(system) + fixed * sizes.example) + MESSAGE_TOKENS * (1 + 2 * fixed)
    varying = tokens_of(examples * sizes.example + retrieved + sizes.text) + MESSAGE_TOKENS * (1 + 2 * examples)
    is_local = all(model.is_open for model in use_case.models.candidates)
    limit = use_case.traffic.output_tokens
    out = min(tokens_of(sizes.answer) + 1, limit) + (CONSTRAINT_TOKENS if constrained else 0)
    return Usage(stable + varying, stable if is_local else 0, 0, out)


def tokens_of(chars: float) -> int:
    """Tokens of that many characters of English."""
    return math.ceil(chars / ENGLISH_CHARS_PER_TOKEN)
