"""The endpoint's log of requests: its columns, how a table is known for one, and which of its rows are requests.

What the champion said is never an expected answer, whatever a use case calls its columns: of a log only a column that
somebody added may be one. It writes nothing (see `leastwise.serving.traffic`).
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores.storage import files_below
from leastwise.stores.tables.drawn_rows import say_once
from leastwise.stores.tables.journal import Columns
from leastwise.text_forms import shows_nothing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Columns = {
    "time": "float64",
    "id": "string",
    "text": "string",
    "answer": "string",
    "predicted_label": "string",  # not `label`: what the champion said must never pass for an expected answer
    "status": "int64",
    "confidence": "float64",
    "latency_ms": "float64",
    "input_tokens": "int64",
    "cached_tokens": "int64",
    "output_tokens": "int64",
    "usd": "float64",
    "version": "string",
    "alias": "string",
    "candidate": "string",
    "trace_id": "string",
}
TIME = "time"
SHADOW = "shadow"  # the alias of what a challenger was asked beside the champion
SAID, TEXT = "answer", "text"
KNOWN_BY = COLUMNS.keys() - {
    TIME,
    "id",
    TEXT,
    SAID,
}  # what is known of an answer that a model gave, and of no right one
LEAST_KNOWN = 3  # a part of before a column was kept, or a log saved again with some left out, is a log too


def is_log(columns: Collection[object]) -> bool:
    """Whether a table is an endpoint's log, in whatever format it was saved again and whatever was added to it."""
    names = set(columns)
    return SAID in names and len(names & KNOWN_BY) >= LEAST_KNOWN


def may_be_expected(column: str, columns: Collection[object]) -> bool:
    """Whether this column of a table may hold expected answers: of a log none of its own, which the model gave."""
    return column in columns and not (column in COLUMNS and is_log(columns))


def without_own(table: pd.DataFrame) -> pd.DataFrame:
    """A table without a log's own columns but id and text: with an expected answer of people it is a log no longer."""
    return table.drop(columns=[name for name in (SAID, TIME, *KNOWN_BY) if name in table]) if is_log(table) else table


def time_column(columns: Collection[object]) -> str | None:
    """The column that says when a request came, where a log has it (unix seconds)."""
    return TIME if is_log(columns) and TIME in columns else None


def requests(
    blocks: Iterable[pd.DataFrame], uri: str, source: str, most_characters: float = math.inf
) -> Iterator[pd.DataFrame]:
    """The rows of a table, a block at a time; of a log those that came as requests and can be asked again, whichever
    their status, counted anew: they hold a text, of `most_characters` at most.

    What a challenger was asked in the shadow came once and is in the log already. BadInput where nothing else is there,
    or where several endpoints' logs, or a log and another table, lie in one folder.
    """
    count = shadows = unasked = 0
    are_logs, first = set[bool](), None
    for block in blocks:
        first = block.head(0) if first is None else first
        are_logs.add(is_log(block.columns))
        if len(are_logs) > 1:
            raise BadInput(f"{source}: some of its tables are an endpoint's log and some are not; name one of the two")
        if not is_log(block.columns):
            yield block
            continue
        if not count:
            _check_one_log(uri, source)
        asked = block[block["alias"].ne(SHADOW).fillna(True)] if "alias" in block else block
        can_be_asked = partial(_can_be_asked, most_characters)
        kept = asked[asked[TEXT].map(can_be_asked).astype(bool)] if TEXT in asked else asked
        shadows, unasked = shadows + len(block) - len(asked), unasked + len(asked) - len(kept)
        kept = kept.set_axis(range(count, count + len(kept)))
        count += len(kept)
        if len(kept):
            yield kept
    if are_logs == {True}:
        _say_what_is_left_out(count, shadows, unasked, source)
        if not count and first is not None:
            yield first


def _say_what_is_left_out(count: int, shadows: int, unasked: int, source: str) -> None:
    """What is to be said of a log that was read; BadInput where it has shadows alone."""
    if shadows and not count:
        raise BadInput(
            f"{source}: is what a challenger was asked in the shadow, of requests that are in the endpoint's log too; "
            "name that (the folder without -shadow)"
        )
    if unasked:
        say_once(
            f"{source}: {unasked:,} requests cannot be asked again (no text, or longer than the smallest model takes); "
            "they are left out"
        )


def _check_one_log(uri: str, source: str) -> None:
    """One endpoint's requests: several of them are different tasks."""
    below = (posixpath.relpath(file, uri).split("/") for file in files_below(uri))
    names = sorted({parts[0] for parts in below if len(parts) > 1 and "=" not in parts[0]})
    apart = [name for name in names if not name.endswith(f"-{SHADOW}")]
    if len(apart) > 1:
        raise BadInput(
            f"{without_secrets(source)}: holds the logs of several endpoints ({', '.join(apart[:5])}); name one of "
            "them, such as its folder " + apart[0]
        )


def _can_be_asked(most_characters: float, text: object) -> bool:
    return isinstance(text, str) and len(text) <= most_characters and "\0" not in text and not shows_nothing(text)
