"""Checks of the tables of a use case against each other and its models: texts that leak between splits, texts too long.

It reads no table (they are handed in by name) and finds no paraphrases: see `leastwise.rows.near_duplicates`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.rows.expected_answers import are_known
from leastwise.rows.near_duplicates import normalised
from leastwise.rows.reading.raw_tables import room_in_characters
from leastwise.text_forms import one_form
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

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
_MARK = re.compile(r"[\W_]+")
_MARKS = {code: None for code in range(128) if not chr(code).isalnum()}

Hashes = npt.NDArray[np.uint64]


def check_lengths(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput for a text that does not fit the context of the smallest candidate."""
    shortest = min(model.context_tokens for model in use_case.models.candidates)
    room = room_in_characters(use_case)
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


def check_leakage(
    use_case: UseCase, table: Callable[[str], pd.DataFrame | None], texts: Callable[[str], Iterable[pd.Series]]
) -> None:
    """BadInput for a text, or a group of `data.split_by`, that is in two splits which must be apart.

    Traffic that is nothing but dev rows is a replay made of them: it is told and let through, since it says how
    requests repeat. A part of the traffic that is in dev is a leak, unless no answer to it is scored: people ask what
    others asked before. `texts`: all of a table's, a block at a time.
    """
    said = cache(lambda name: _Said.of(texts(name)))
    for second in dict.fromkeys(second for _, second in APART):
        firsts = [first for first, other in APART if other == second and table(first) is not None]
        other = table(second)
        if other is None or not firsts:
            continue
        for first in firsts if second != "traffic" else ():  # people come again
            if (first, second) not in TEXTS_ALONE:
                _check_groups(use_case.data.split_by, first, table(first), second, other)
        for leak in _leaks({first: said(first) for first in firsts}, texts(second)):
            if (leak.split, second) == REPLAY and leak.texts == leak.of:
                log.info("data.traffic repeats rows of data.dev: it is taken as a replay, judged for its repetition")
            elif leak.texts and second == "traffic" and not are_known(use_case, other):
                log.info(
                    f"data.traffic: {leak.texts:,} of {leak.of:,} requests are in data.{leak.split} too; they are "
                    "replayed all the same, since none of them is scored right or wrong"
                )
            elif leak.texts:
                raise BadInput(
                    f"data.{second}: {leak.texts} texts are in data.{leak.split} too, so the gate would measure memory "
                    f"(first: row {leak.row}, {leak.text[:80]!r}); remove them from one of the two"
                )


@dataclass
class _Leak:
    """How many texts of a table are in a split too, and the first of them."""

    split: str
    texts: int = 0
    of: int = 0
    row: int = 0
    text: str = ""


@dataclass(frozen=True)
class _Said:
    """What the texts of a table say, as sorted hashes: their forms, and these without any mark, which are made fast."""

    forms: Hashes
    bare: Hashes

    @classmethod
    def of(cls, blocks: Iterable[pd.Series]) -> _Said:
        """Of all the texts of a table."""
        parts = [(_forms(block.tolist()), _bare(block.tolist())) for block in blocks]
        return cls(*(np.unique(np.concatenate(each)) for each in zip(*parts, strict=True)))


def _leaks(seen: Mapping[str, _Said], blocks: Iterable[pd.Series]) -> list[_Leak]:
    leaks = [_Leak(split) for split in seen]
    for block in blocks:
        codes, distinct = block.factorize()  # traffic repeats
        texts = np.asarray(distinct, dtype=object)
        bare = _bare(texts)
        for leak in leaks:
            said, is_in = seen[leak.split], np.zeros(len(texts), dtype=bool)
            alike = np.flatnonzero(_are_among(bare, said.bare))
            is_in[alike] = _are_among(_forms(texts[alike]), said.forms)
            rows = np.flatnonzero(is_in[codes])
            if rows.size and not leak.texts:
                leak.row, leak.text = int(block.index[rows[0]]) + 1, str(block.iloc[rows[0]])
            leak.texts, leak.of = leak.texts + rows.size, leak.of + len(block)
    return leaks


def _are_among(hashes: Hashes, ordered: Hashes) -> npt.NDArray[np.bool_]:
    if not ordered.size:
        return np.zeros(hashes.size, dtype=bool)
    return np.asarray(ordered[np.minimum(np.searchsorted(ordered, hashes), ordered.size - 1)] == hashes)


def leakage(train: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """The texts of `other` that `train` has too, but for case, punctuation and spacing. Paraphrases are not found."""
    theirs = {normalised(text) for text in train}
    return tuple(text for text in other if normalised(text) in theirs)


def _forms(texts: Iterable[str]) -> Hashes:
    """A hash of what each text says: millions of texts are held in a few bytes each."""
    return _hashed(map(normalised, texts))


def _bare(texts: Iterable[str]) -> Hashes:
    """A hash of the letters and digits of each text alone: those of texts that say the same are the same."""
    forms = (one_form(text).casefold() for text in texts)
    return _hashed(form.translate(_MARKS) if form.isascii() else _MARK.sub("", form) for form in forms)


def _hashed(texts: Iterable[str]) -> Hashes:
    import xxhash

    return np.fromiter((xxhash.xxh64_intdigest(text.encode()) for text in texts), np.uint64)


def _check_groups(column: str | None, first: str, one: pd.DataFrame | None, second: str, other: pd.DataFrame) -> None:
    if column and one is not None and column in one and column in other:
        shared = set(one[column].dropna()) & set(other[column].dropna())
        if shared:
            raise BadInput(
                f"data.split_by: {column} {sorted(map(str, shared))[0]!r} is both in data.{first} and data.{second}; "
                "split by groups"
            )
