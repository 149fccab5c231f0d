"""What is said of each row before it is checked: duplicates, leaks, control characters, language, personal data.

It judges nothing: the suites in `expectations/` do, by these columns. It also lists labels that neighbours disagree
with, for a person to look at; nothing is ever dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from leastwise.rows import near_duplicates, personal_data
from leastwise.rows.near_duplicates import normalised

if TYPE_CHECKING:
    import pandas as pd

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
SURE_OF_LANGUAGE = 10.0  # nats by which another language must be likelier; no English training sentence came near it
READ_CHARACTERS = 300  # of a text, for its language
READ_TEXTS = 2**15  # whose language is remembered: what is unlabelled is often train once more
NEIGHBOURS, MOST_AGREE = 15, 0.8
ROWS_AT_A_TIME = 1024
TEXTS_AT_A_TIME = 100_000  # held against another table at once


def profiled(
    table: pd.DataFrame, language: str | None = None, against: Mapping[str, pd.DataFrame] | None = None
) -> pd.DataFrame:
    """The table with a column for each thing that suites ask about; texts that are missing are left to them.

    `against`: tables none of whose texts may be in this one, by name; `leaks_from` names table and id.
    """
    described = table.copy(deep=False)
    if "text" not in table or "id" not in table:
        return described
    texts = [text if isinstance(text, str) else "" for text in table["text"]]
    ids = [str(row_id) for row_id in table["id"]]
    described["control_characters"] = [len(CONTROL.findall(text)) for text in texts]
    said = [normalised(text) for text in texts]
    described["exact_duplicate_of"] = _first_of(said, ids)
    described["near_duplicate_of"] = _near(said, ids)
    described["leaks_from"] = _leaks(said, against or {})
    described["other_language"] = other_languages(texts, language)
    described["personal"] = [personal_data.kinds_in(text, personal_data.PERSONAL) for text in texts]
    described["secret"] = [personal_data.kinds_in(text, personal_data.SECRET) for text in texts]
    return described


def _first_of(said: Sequence[str], ids: Sequence[str]) -> list[str | None]:
    """For each text that came before, the id of the first; empty texts are no duplicates."""
    seen: dict[str, str] = {}
    firsts: list[str | None] = []
    for text, row_id in zip(said, ids, strict=True):
        firsts.append(seen.get(text) if text else None)
        seen.setdefault(text, row_id)
    return firsts


def _near(said: Sequence[str], ids: Sequence[str]) -> list[str | None]:
    """Where a text is nearly one before it; what says exactly the same is looked at once."""
    found: list[str | None] = [None] * len(said)
    own = _distinct(said)
    places = list(own.values())
    for pair in near_duplicates.pairs_of(list(own)):
        if found[places[pair.other]] is None:
            found[places[pair.other]] = f"{ids[places[pair.one]]} ({pair.similarity:.0%} alike)"
    return found


def _leaks(said: Sequence[str], against: Mapping[str, pd.DataFrame]) -> list[str | None]:
    """Where a text of another table says the same, or nearly: `train t45 (81% alike)`; a block of texts at a time."""
    leaks: dict[str, str] = {}
    distinct = list(_distinct(said))
    for name, other in against.items():
        theirs, their_ids = _distinct([normalised(str(text)) for text in other["text"]]), list(other["id"])
        places = list(theirs.values())
        for start in range(0, len(distinct), TEXTS_AT_A_TIME):
            both = [*theirs, *distinct[start : start + TEXTS_AT_A_TIME]]
            for pair in near_duplicates.pairs_of(both, between=len(theirs)):
                leak = f"{name} {their_ids[places[pair.one]]} ({pair.similarity:.0%} alike)"
                leaks.setdefault(both[pair.other], leak)
    return [leaks.get(text) for text in said]


def _distinct(said: Sequence[str]) -> dict[str, int]:
    """Each text once, with the position of the first."""
    first: dict[str, int] = {}
    for at, text in enumerate(said):
        first.setdefault(text, at)
    return first


def other_languages(texts: Sequence[str], expected: str | None) -> list[str | None]:
    """The language of each text that is surely not in the expected one; None where none is expected."""
    if expected is None:
        return [None] * len(texts)
    return [_other_language(text[:READ_CHARACTERS], expected) for text in texts]


@lru_cache(maxsize=READ_TEXTS)
def _other_language(text: str, expected: str) -> str | None:
    import py3langid

    ranked = py3langid.rank(text)
    likely, score = ranked[0]
    is_other = likely != expected and score - dict(ranked).get(expected, -np.inf) > SURE_OF_LANGUAGE
    return str(likely) if is_other else None


class SuspectedLabel(NamedTuple):
    """A row whose label most of its nearest neighbours disagree with: its label, theirs, and their share."""

    row_id: str
    label: str
    neighbours_label: str
    share: float


def suspected_labels(
    ids: Sequence[str], labels: Sequence[str], vectors: npt.NDArray[np.floating], most: int = 50
) -> list[SuspectedLabel]:
    """At most so many rows whose label most of their nearest neighbours disagree with, surest first.

    `vectors` are unit vectors, shape (n, d). At least 80% of the 15 nearest others must carry one other label.
    """
    if len(ids) <= NEIGHBOURS:
        return []
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    suspects = []
    for start in range(0, len(ids), ROWS_AT_A_TIME):
        part = vectors[start : start + ROWS_AT_A_TIME] @ vectors.T
        rows = np.arange(start, start + part.shape[0])
        part[np.arange(part.shape[0]), rows] = -np.inf
        nearest = np.argpartition(-part, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        for row, near in zip(rows, codes[nearest], strict=True):
            counts = np.bincount(near, minlength=names.size)
            top = int(counts.argmax())
            if top != codes[row] and counts[top] >= MOST_AGREE * NEIGHBOURS:
                share = float(counts[top] / NEIGHBOURS)
                suspects.append(SuspectedLabel(str(ids[row]), str(labels[row]), str(names[top]), share))
    return sorted(suspects, key=lambda each: -each.share)[:most]
