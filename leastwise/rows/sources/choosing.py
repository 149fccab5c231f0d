"""Which columns of a table hold the text and the expected answer: as told, by their names, else by what they hold.

Where more than one could be meant it does not guess: BadInput names them and the argument that decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import JOIN, LABEL_NAMES, TEXT_NAMES, Columns, key_of, written

if TYPE_CHECKING:
    import pandas as pd

MOST_LABELS, LEAST_A_LABEL = 200, 3
SPLIT_NAMES, GROUPING = ("split", "subset", "fold", "partition"), ("id", "uuid", "index", "rowid")


class Chosen(NamedTuple):
    """The columns by what they hold; label and split may be missing."""

    text: str
    label: str | None
    split: str | None


def choose(table: pd.DataFrame, columns: Columns, source: str) -> Chosen:
    """The columns of a table."""
    names = [str(name) for name in table.columns]
    for field, given in (("text_column", columns.text_column), ("label_column", columns.label_column)):
        parts = [given] if given in names else given.split(JOIN) if field == "text_column" else [given]
        if given and (missing := [each for each in parts if each not in names]):
            raise BadInput(
                f"{source}: no column {missing[0]!r}, which --{field.replace('_', '-')} names (it has "
                f"{', '.join(names)})"
            )
    if columns.split_by and columns.split_by not in names:
        raise BadInput(f"{source}: no column {columns.split_by!r}, which --split-by names (it has {', '.join(names)})")
    split = next((name for name in names if key_of(name) in SPLIT_NAMES), None)
    taken = {columns.text_column, columns.label_column, columns.split_by, split}
    free = [name for name in names if name not in taken and key_of(name) not in GROUPING]
    label = columns.label_column or _named(free, LABEL_NAMES)
    label = _spelled(table, label, free) if label and not columns.label_column else label
    text = columns.text_column or _named([name for name in free if name != label], TEXT_NAMES)
    text = text or _longest(table, [name for name in free if name != label], source)
    return Chosen(text, label or _fewest(table, [name for name in free if name != text], source), split)


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The column of the likeliest name: the name itself, else one of its words (`ticket_text`, `correctLabel`)."""
    for each in known:
        if exact := [name for name in names if key_of(name) == each]:
            return exact[0]
    for each in known:
        if within := [name for name in names if each in _words(name)]:
            return within[0]
    return None


def _words(name: str) -> list[str]:
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").replace("-", " ").casefold().split()


def _spelled(table: pd.DataFrame, label: str, names: Sequence[str]) -> str:
    """The column that has the names of labels which this one has as numbers (`label_text` beside `label`)."""
    if table[label].map(written).str.fullmatch(r"-?\d+").all():
        for name in names:
            if name != label and key_of(name) in (f"{key_of(label)}text", f"{key_of(label)}name"):
                return name
    return label


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    return [text for text in map(written, table[name]) if text]


def _longest(table: pd.DataFrame, names: Sequence[str], source: str) -> str:
    """The column of the longest texts, most of which differ."""
    sizes = {}
    for name in names:
        texts = _texts(table, name)
        if texts and len(set(texts)) > len(texts) / 2 and not all(text.isdigit() for text in texts):
            sizes[name] = sum(map(len, texts)) / len(texts)
    if not sizes:
        raise BadInput(
            f"{source}: no column of texts is seen among {', '.join(map(str, table.columns))}; name it by --text-column"
        )
    return max(sizes, key=lambda name: (sizes[name], name))


def _fewest(table: pd.DataFrame, names: Sequence[str], source: str) -> str | None:
    """The one column that repeats few values; BadInput where there are several, None where there is none."""
    could_be = []
    for name in names:
        texts = _texts(table, name)
        if 2 <= len(set(texts)) <= min(MOST_LABELS, len(texts) / LEAST_A_LABEL):
            could_be.append(name)
    if len(could_be) > 1:
        raise BadInput(
            f"{source}: {' and '.join(map(repr, could_be))} could each be the expected answer; name one by "
            "--label-column"
        )
    return could_be[0] if could_be else None
