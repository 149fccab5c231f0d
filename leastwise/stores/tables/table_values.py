"""Values of a table as text, the same whatever the format: 7 and "7", a date and its ISO form, true and "true".

It decides nothing about a text and changes none that is one.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import numpy as np

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED_ROWS = 5
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

Value = TypeVar("Value")


def texts(values: Iterable[object], column: str, source: str) -> list[str | None]:
    """Each value as text, None where it is missing; BadInput names the row (from 1) whose value is none."""
    return each_row(values, as_text, f"{source}: row", f"{column!r} ")


def each_row(values: Iterable[object], value_of: Callable[[object], Value], where: str, what: str = "") -> list[Value]:
    """What is made of each value; BadInput names the row (from 1) of which nothing can be made (ValueError)."""
    made = []
    for row, value in numbered(values):
        try:
            made.append(value_of(value))
        except ValueError as error:
            raise BadInput(f"{where} {row}: {what}{error}; correct the row") from None
    return made


def numbered(values: Iterable[Value]) -> Iterator[tuple[int, Value]]:
    """Each value with its row in the file, from 1: a column of a later block of rows knows where it stands."""
    import pandas as pd

    if not isinstance(values, pd.Series):
        return zip(itertools.count(1), values, strict=False)
    places = values.index
    first = int(places[0]) if len(values) else 0
    if len(values) and int(places[-1]) - first + 1 != len(values):  # a part of the rows
        return zip((int(at) + 1 for at in places), values.tolist(), strict=True)
    return zip(itertools.count(first + 1), values.tolist(), strict=False)  # a list is gone through much faster


def named(bad: Iterable[bool]) -> str:
    """The rows where this holds, the first five by their number."""
    return named_rows([number for number, is_bad in numbered(bad) if is_bad])


def named_rows(numbers: Sequence[int]) -> str:
    """These rows, the first five of them by their number."""
    more = f" and {len(numbers) - MAX_NAMED_ROWS} more" if len(numbers) > MAX_NAMED_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MAX_NAMED_ROWS]))}{more}"


def as_number(value: object) -> float | None:
    """A finite number, or one in text; None for anything else."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        number = float(value) if isinstance(value, (str, int, float, np.number, Decimal)) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_text(value: object) -> str | None:
    """A value as text, None where it is missing; ValueError where it is a record, a list or no writable text."""
    if isinstance(value, np.generic):
        value = value.item()
    if is_missing(value):
        return None
    if isinstance(value, bytes):
        value = value.decode()  # a UnicodeDecodeError is a ValueError
    if isinstance(value, str):
        return _writable(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise ValueError(f"is no text but {str(value)[:60]!r} ({type(value).__name__})")


def is_missing(value: object) -> bool:
    """None, NaN and not-a-time of any library."""
    return value is None or (value != value) is True or type(value).__name__ in ("NAType", "NaTType")


def text_column(table: pd.DataFrame, column: str, source: str) -> pd.Series:
    """A column as text; BadInput names the row whose value is none."""
    import pandas as pd

    held = table[column]
    if is_text(held):
        return held
    return pd.Series(texts(held, column, source), dtype="str", index=table.index)


def is_text(values: object) -> TypeGuard[pd.Series]:
    """Whether it is a column that holds nothing but text that can be written, and what is missing."""
    import pandas as pd

    return isinstance(values, pd.Series) and isinstance(values.dtype, pd.StringDtype) and not _holds_nul(values)


def _holds_nul(values: pd.Series) -> bool:
    return bool(values.str.contains("\0", regex=False).fillna(False).any())


def name_column(table: pd.DataFrame, column: str, source: str) -> pd.Series:
    """A column that names things (ids, groups, kinds) as text: 7.0 of a column of floats is 7, as integers beside a
    missing value are kept.
    """
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(table[column].dtype) and table[column].dtype != object:
        return text_column(table, column, source)
    values = [int(each) if isinstance(each, float) and each.is_integer() else each for each in table[column]]
    return text_column(pd.DataFrame({column: pd.Series(values, index=table.index, dtype=object)}), column, source)


def with_ids(frame: pd.DataFrame, derives: bool) -> pd.DataFrame:
    """The rows with an id each: derived from the text where a cell is empty, and, if it `derives`, where the column is
    missing.
    """
    if "id" not in frame:
        if derives:
            frame["id"] = derived_ids(frame["text"])
    elif (missing := frame["id"].isna()).any():
        frame["id"] = frame["id"].where(~missing, derived_ids(frame["text"]))
    return frame


def derived_ids(texts: Iterable[str]) -> list[str]:
    """An id for each text by its content: the same in every table, numbered where a text comes again."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        name = f"text-{hashlib.sha256(str(text).encode()).hexdigest()[:16]}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def _writable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    return text
