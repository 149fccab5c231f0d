"""A table as the use case names its columns: text as text whatever the format, masked, with ids.

Every table and every window of traffic comes in by here. It does not say which rows a use case may have (see
`leastwise.rows.tables`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows import personal_data, row_checks
from leastwise.stores import table_files, table_values
from leastwise.use_case.data import Data

if TYPE_CHECKING:
    import pandas as pd

STANDARD = {"id": "id_column", "text": "text_column", "label": "label_column"}


def raw_table(uri: str, data: Data, source: str) -> pd.DataFrame:
    """A table as its file has it, but for the columns that group or name rows: those are text."""
    raw = table_files.read_table(uri)
    for column in {data.unit_by, data.split_by, data.kind_column} & set(raw.columns):
        raw[column] = table_values.text_column(raw, str(column), source)
    return raw


def named(raw: pd.DataFrame, data: Data, source: str) -> pd.DataFrame:
    """The table with columns id, text and label where it has them, ids and texts as text.

    The column that the use case names is used, whatever else the table has; where it is missing, one of the standard
    name. What had a standard name and is not the one named is left out.
    """
    sources = {name: str(getattr(data, field)) for name, field in STANDARD.items()}
    used = {name: column if column in raw else name for name, column in sources.items()}
    used = {name: column for name, column in used.items() if column in raw}
    if "text" not in used and data.text_column != "text" and len(raw):
        raise BadInput(
            f"{source}: no column {data.text_column!r}, which data.text_column names (it has "
            f"{', '.join(map(str, raw.columns))}). Add it, or correct data.text_column."
        )
    frame = raw.drop(columns=list({*used.values(), *(STANDARD.keys() & set(raw.columns))}))
    for name, column in used.items():
        frame[name] = raw[column] if name == "label" else table_values.text_column(raw, column, source)
    if data.split_by in raw and data.split_by not in frame:
        frame[data.split_by] = raw[data.split_by]
    return frame


def window(uri: str, data: Data, source: str) -> pd.DataFrame:
    """Recent inputs with their text as every table of the use case has it; BadInput for missing or empty text."""
    rows = named(raw_table(uri, data, source), data, source)
    row_checks.check_rows(rows, source, label=None, id=None)
    return masked(rows, data)


def masked(frame: pd.DataFrame, data: Data, *also: str) -> pd.DataFrame:
    """The rows with `data.mask` masked in every text: the input, a graded answer, and what else is named."""
    import pandas as pd

    for column in ({"text", "answer", *also} & set(frame.columns)) if data.mask else ():
        mask = personal_data.masked_values if column in also else _masked_text
        values = [mask(value, data.mask) for value in frame[column]]
        frame[column] = pd.Series(values, index=frame.index, dtype=frame[column].dtype)
    return frame


def _masked_text(value: object, kinds: tuple[str, ...]) -> object:
    return personal_data.masked(value, kinds) if isinstance(value, str) else value


def with_ids(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """The rows with an id each: where the use case names no column and there is none, or a cell is empty, by the text.

    The same text has the same id in every table; where a table holds it again, the id is numbered.
    """
    if "id" not in frame:
        if data.id_column != "id":
            return frame
        frame["id"] = _derived(frame["text"])
    elif (missing := frame["id"].isna()).any():
        frame["id"] = frame["id"].where(~missing, _derived(frame["text"]))
    return frame


def _derived(texts: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        name = f"text-{hashlib.sha256(str(text).encode()).hexdigest()[:16]}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids
