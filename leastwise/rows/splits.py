"""Checks of the tables of a use case against each other and its models: texts that leak between splits, texts too long.

It reads no table (they are handed in by name) and finds no paraphrases: see `leastwise.rows.near_duplicates`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.rows.near_duplicates import normalised
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

CHARS_PER_TOKEN = 3.0  # below every tokenizer's average for English, so that a text let through does fit
APART = (
    ("train", "gate"),
    ("train", "test"),
    ("train", "dev"),
    ("train", "shifted"),
    ("train", "traffic"),
    ("dev", "gate"),
    ("dev", "test"),
    ("dev", "shifted"),
    ("dev", "traffic"),
    ("gate", "test"),
    ("unlabelled", "gate"),
    ("unlabelled", "test"),
    ("unlabelled", "shifted"),
    ("train", "out_of_scope"),  # as rows whose label declines
    ("dev", "out_of_scope"),
    ("gate", "out_of_scope"),  # answered in one, declined in the other: no candidate can do both
    ("unlabelled", "out_of_scope"),
    ("out_of_scope_dev", "out_of_scope"),
)
REPLAY = ("dev", "traffic")
TEXTS_ALONE = frozenset({("gate", "out_of_scope")})  # rows held out of a group of the gate stay beside it


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
                f"data.{name}: row {row + 1} has {len(str(frame.loc[row, 'text'])):,} characters, more than the "
                f"{shortest:,} tokens of context of the smallest model take (about {room:,}); shorten it or set "
                "models.candidates.context_tokens"
            )


def check_leakage(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput for a text, or a group of `data.split_by`, that is in two splits which must be apart.

    Traffic that is nothing but dev rows is a replay made of them: it is told and let through, since it says how
    requests repeat. A part of the traffic that is in dev is a leak.
    """
    forms = cache(lambda name: None if (frame := table(name)) is None else _forms(frame["text"]))
    for first, second in APART:
        one, other, seen, theirs = table(first), table(second), forms(first), forms(second)
        if one is None or other is None or seen is None or theirs is None:
            continue
        if (first, second) not in TEXTS_ALONE and second != "traffic":  # people come again
            _check_groups(use_case.data.split_by, first, one, second, other)
        leaks = np.flatnonzero(np.isin(theirs, seen))
        if (first, second) == REPLAY and leaks.size == len(other):
            log.info("data.traffic repeats rows of data.dev: it is taken as a replay, judged for its repetition")
        elif leaks.size:
            text = str(other["text"].iloc[leaks[0]])
            raise BadInput(
                f"data.{second}: {leaks.size} texts are in data.{first} too, so the gate would measure memory "
                f"(first: row {leaks[0] + 1}, {text[:80]!r}); remove them from one of the two"
            )


def leakage(train: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """The texts of `other` that `train` has too, but for case, punctuation and spacing. Paraphrases are not found."""
    theirs = {normalised(text) for text in train}
    return tuple(text for text in other if normalised(text) in theirs)


def _forms(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """A hash of what each text says: millions of texts are held in a few bytes each."""
    import xxhash

    return np.fromiter((xxhash.xxh64_intdigest(normalised(text).encode()) for text in texts), np.uint64)


def _check_groups(column: str | None, first: str, one: pd.DataFrame, second: str, other: pd.DataFrame) -> None:
    if column and column in one and column in other:
        shared = set(one[column].dropna()) & set(other[column].dropna())
        if shared:
            raise BadInput(
                f"data.split_by: {column} {sorted(map(str, shared))[0]!r} is both in data.{first} and data.{second}; "
                "split by groups"
            )
