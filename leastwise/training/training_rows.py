"""Prompts and completions as the rows a causal model is trained on: rendered, tokenized, packed and ordered.

It trains nothing: `leastwise.training.training` does, with the settings it is given.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from leastwise.errors import BadInput
from leastwise.models.causal_model import IGNORED, tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from leastwise.training.settings import TrainingSettings


TokenRow: TypeAlias = dict[str, list[int]]  # input_ids, and as many labels


@dataclass(frozen=True)
class Row:
    """One example: a prompt already in chat format (`format_chat`) and the completion without its end mark."""

    prompt: str
    completion: str


def training_order(encoded: list[TokenRow], settings: TrainingSettings) -> list[int]:
    """Rows in training order: shuffled, and within each step sorted by length, so that little is padded.

    Steps are not made of rows of one length: that pads less still (1.01 for 1.15), and learns less (docs/training.md).
    Fixed before training, so that a resumed one skips exactly what it has seen.
    """
    rng = random.Random(settings.seed)
    drawn: list[int] = []
    for _ in range(settings.epochs):
        drawn += rng.sample(range(len(encoded)), len(encoded))
    drawn = drawn[: settings.max_examples]
    steps = [drawn[at : at + settings.batch_size] for at in range(0, len(drawn), settings.batch_size)]
    return [i for step in steps for i in sorted(step, key=lambda i: len(encoded[i]["input_ids"]))]


def encoded_row(tokenizer: PreTrainedTokenizerBase, row: Row, at: int, max_tokens: int) -> TokenRow:
    """The row as tokens, the prompt without loss. BadInput, naming its number `at`, where it is empty or too long."""
    prompt = tokenizer(row.prompt, add_special_tokens=False).input_ids
    completion = tokenizer(f"{row.completion}{tokenizer.eos_token}", add_special_tokens=False).input_ids
    ids = prompt + completion
    if not prompt or not row.completion:
        raise BadInput(f"training row {at}: prompt or completion is empty; remove the row")
    if len(ids) > max_tokens:
        raise BadInput(
            f"training row {at}: {len(ids)} tokens, more than max_tokens {max_tokens}; shorten it or raise it"
        )
    return {"input_ids": ids, "labels": [IGNORED] * len(prompt) + completion}


def packed(base: Path, texts: Sequence[str], max_tokens: int) -> list[TokenRow]:
    """The texts one after the other, cut to rows of `max_tokens`, all with loss; BadInput where they fill none."""
    tokenizer = tokenizer_of(str(base))
    stream = [
        i for text in texts for i in (*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id)
    ]
    chunks = [stream[at : at + max_tokens] for at in range(0, len(stream), max_tokens)]
    kept = [chunk for chunk in chunks if len(chunk) == max_tokens]
    if not kept:
        raise BadInput(
            f"texts: {len(stream)} tokens in all, fewer than one sequence of max_tokens {max_tokens}; add texts"
        )
    return [{"input_ids": chunk, "labels": chunk} for chunk in kept]
