"""Checks of the tables of a use case against each other and its models: texts that leak between splits, texts too long.

It reads no table (they are handed in by name) and finds no paraphrases: see `leastwise.rows.near_duplicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows import data_quality
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

CHARS_PER_TOKEN = 3.0  # below every tokenizer's average for English, so that a text let through does fit
APART = (("train", "gate"), ("train", "test"), ("dev", "gate"), ("gate", "test"), ("out_of_scope_dev", "out_of_scope"))


def check_lengths(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput for a text that does not fit the context of the smallest candidate."""
    shortest = min(model.context_tokens for model in use_case.models.candidates)
    room = int((shortest - use_case.traffic.output_tokens) * CHARS_PER_TOKEN)
    for name in ("gate", "test", "dev", "shifted"):
        frame = table(name)
        if frame is None:
            continue
        too_long = frame.index[frame["text"].str.len() > room]
        if len(too_long):
            row = int(too_long[0])
            raise BadInput(
                f"data.{name}: row {row} has {len(str(frame.loc[row, 'text'])):,} characters, more than the "
                f"{shortest:,} tokens of context of the smallest model take (about {room:,}); shorten it or set "
                "models.candidates.context_tokens"
            )


def check_leakage(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput for a text, or a group of `data.split_by`, that is in two splits which must be apart."""
    for first, second in APART:
        one, other = table(first), table(second)
        if one is None or other is None:
            continue
        _check_groups(use_case.data.split_by, first, one, second, other)
        texts = leakage(one["text"], other["text"])
        if len(texts):
            raise BadInput(
                f"data.{second}: {len(texts)} texts are in data.{first} too, so the gate would measure memory "
                f"(first: {texts[0][:80]!r}); remove them from one of the two"
            )


def leakage(train: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """The texts of `other` that `train` has too, but for case, punctuation and spacing. Paraphrases are not found."""
    theirs = {data_quality.normalised(text) for text in train}
    return tuple(text for text in other if data_quality.normalised(text) in theirs)


def _check_groups(column: str | None, first: str, one: pd.DataFrame, second: str, other: pd.DataFrame) -> None:
    if column and column in one and column in other:
        shared = set(one[column]) & set(other[column])
        if shared:
            raise BadInput(
                f"data.split_by: {column} {sorted(map(str, shared))[0]!r} is both in data.{first} and data.{second}; "
                "split by groups"
            )
