"""The tables of a use case as their files have them, with the columns id, text and label under these names.

It checks nothing but that the column with the text is there (see `leastwise.rows.tables`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.reading import request_log
from leastwise.stores.tables import table_files, table_values
from leastwise.use_case import UseCase
from leastwise.use_case.data import Data

if TYPE_CHECKING:
    import pandas as pd

CHARS_PER_TOKEN = 3.0


def raw(uri: str, data: Data, source: str, are_answers: bool = False) -> pd.DataFrame:
    """A table as its file has it, but for the columns that group or name rows: those are text. Of an endpoint's log the
    requests, unless it is about the answers, whoever gave them.
    """
    table = table_files.read_table(uri)
    if not are_answers:
        (table,) = request_log.requests([table], uri, source)
    return _grouped(table, data, source)


def raw_requests(
    uri: str, data: Data, source: str, parts: Sequence[str] = (), most_characters: float = math.inf
) -> Iterator[pd.DataFrame]:
    """The same a block of rows at a time, of these `parts` where it may grow; of an endpoint's log the requests of
    `most_characters`.
    """
    blocks = (_grouped(block, data, source) for block in table_files.read_blocks(uri, parts))
    return request_log.requests(blocks, uri, source, most_characters)


def room_in_characters(use_case: UseCase) -> int:
    """The longest text that the context of the smallest candidate takes, about: below every tokenizer's average for
    English, so that a text let through does fit.
    """
    shortest = min(model.context_tokens for model in use_case.models.candidates)
    return int((shortest - use_case.traffic.output_tokens) * CHARS_PER_TOKEN)


def _grouped(table: pd.DataFrame, data: Data, source: str) -> pd.DataFrame:
    for column in {data.unit_by, data.split_by, data.kind_column} & set(table.columns):
        table[column] = table_values.name_column(table, str(column), source)
    return table


def named(table: pd.DataFrame, data: Data, source: str, name_of_table: str = "") -> pd.DataFrame:
    """The table with columns id, text and label where it has them, ids and texts as text.

    The column that the use case names is used, whatever else the table has; where it is missing, one of the standard
    name. What had a standard name and is not the one named is left out. Of an endpoint's log the text is the request's
    and no column of its own is an expected answer.
    """
    used = {name: column for name, column in _used(table, data, name_of_table).items() if column in table}
    if "text" not in used and data.text_column != "text" and len(table):
        raise BadInput(
            f"{source}: no column {data.text_column!r}, which data.text_column names (it has "
            f"{', '.join(map(str, table.columns))}). Add it, or correct data.text_column."
        )
    frame = table.drop(columns=list({*used.values(), *({"id", "text", "label"} & set(table.columns))}))
    for name, column in used.items():
        as_text = table_values.name_column if name == "id" else table_values.text_column
        frame[name] = table[column] if name == "label" else as_text(table, column, source)
    if data.split_by in table and data.split_by not in frame:
        frame[data.split_by] = table[data.split_by]
    return frame


def _used(table: pd.DataFrame, data: Data, name_of_table: str) -> dict[str, str]:
    """Where id, text and label are to be found."""
    named_by = data.columns_of(name_of_table)
    if not request_log.is_log(table.columns):
        return {name: column if column in table else name for name, column in named_by.items()}
    label = data.label_column if request_log.may_be_expected(data.label_column, table.columns) else "label"
    text = request_log.TEXT if request_log.TEXT in table else data.text_column
    return {"id": "id", "text": text, "label": label}
