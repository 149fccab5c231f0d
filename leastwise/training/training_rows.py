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
from leastwise.models.chat import format_chat
from leastwise.money.token_counts import most_tokens
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import trained_prompt
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from leastwise.training.settings import TrainingSettings


MOST_NAMED = 5  # rows in one message

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


def examples_of(use_case: UseCase, frame: pd.DataFrame, base: Path) -> list[Row]:
    """Labelled rows as prompt and completion, the prompt as the chat endpoint will render it."""
    system, task = {"role": "system", "content": trained_prompt(use_case)}, use_case.task
    prompts = [format_chat(base, [system, {"role": "user", "content": text}]) for text in frame["text"]]
    return [Row(prompt, completion_of(task, label)) for prompt, label in zip(prompts, frame["label"], strict=True)]


def check_lengths(source: str, rows: Sequence[Row], base: Path, max_tokens: int) -> None:
    """BadInput that names the rows which are longer than a training takes; what fits by its bytes is not tokenized."""
    tokenizer = tokenizer_of(str(base))
    too_long: dict[int, int] = {}
    for number, row in enumerate(rows, 1):
        text = f"{row.prompt}{row.completion}{tokenizer.eos_token}"
        if most_tokens(text) <= max_tokens:
            continue
        parts = (row.prompt, f"{row.completion}{tokenizer.eos_token}")
        tokens = sum(len(tokenizer(part, add_special_tokens=False).input_ids) for part in parts)
        if tokens > max_tokens:
            too_long[number] = tokens
    if too_long:
        named = ", ".join(map(str, list(too_long)[:MOST_NAMED]))
        more = f" and {len(too_long) - MOST_NAMED} more" if len(too_long) > MOST_NAMED else ""
        raise BadInput(
            f"{source}: row{'s' if len(too_long) > 1 else ''} {named}{more}: up to {max(too_long.values()):,} tokens "
            f"as training examples, more than the {max_tokens:,} of training.max_tokens; shorten them or raise it"
        )


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
