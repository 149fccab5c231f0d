"""Plain checks of rows before anything is spent: columns, missing values, labels, ids, grades and times.

It looks at no content beyond that (see `leastwise.rows.data_quality`) and repairs nothing: BadInput names the row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from leastwise.errors import BadInput
from leastwise.stores.tables import table_values
from leastwise.text_forms import shows_nothing

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED_ROWS = 5
LATEST = 9.2e9  # seconds: in the year 2261, the last that dates in nanoseconds reach
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DIGITS_OF_A_DATE = re.compile(r"(?:1[6-9]|2[01])\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))?")  # YYYY, YYYYMMDD


def check_rows(
    df: pd.DataFrame,
    source: str,
    text: str = "text",
    label: str | None = "label",
    labels: Collection[str] | None = None,
    id: str | None = "id",
) -> None:
    """Raises `BadInput` for the first of: no rows, a missing column, missing or empty text or id, a label outside
    `labels`, duplicate ids. Rows count from 1, without any header. `None` leaves a column unchecked.
    """
    if df.empty:
        raise BadInput(f"{source}: no rows. Add data, or point the use case at another file.")
    for column in (text, label, id):
        if column is not None:
            _check_column(df, source, column)
    for column in (text, label, id):
        if column is not None:
            _check_filled(df[column], source, column)
    if label is not None and labels is not None:
        _check_labels(df[label], source, label, labels)
    if id is not None:
        _check_unique(df[id], source, id)


def check_ids(df: pd.DataFrame, source: str) -> None:
    """Raises `BadInput` where there is no column `id`, or an id is missing, empty, or of two rows."""
    _check_column(df, source, "id")
    _check_filled(df["id"], source, "id")
    _check_unique(df["id"], source, "id")


def grades(df: pd.DataFrame, source: str) -> list[float]:
    """The column `grade`, numbers as text too; BadInput where it or `answer` is missing, or a grade is none of 0..1."""
    for column in ("answer", "grade"):
        _check_column(df, source, column)
    missing = df["answer"].isna()
    if missing.any():
        raise BadInput(
            f"{source}: {_rows(missing)}: missing (NaN) 'answer'. Give the answer that was graded, empty if it was."
        )
    values = [_number(grade) for grade in df["grade"]]
    outside = [value is None or not 0 <= value <= 1 for value in values]
    if any(outside):
        first = df["grade"].iloc[outside.index(True)]
        raise BadInput(
            f"{source}: {_rows(outside)}: 'grade' {first!r} is no number in 0..1. Scale the grades, 1 being best."
        )
    return [value for value in values if value is not None]


def unix_seconds(df: pd.DataFrame, column: str, source: str) -> pd.Series[float]:
    """A column of times as unix seconds; BadInput names the first row that holds none.

    Dates in ISO form (without a zone: UTC), or unix time as numbers, in text too: seconds, or milli-, micro- or
    nanoseconds where seconds would lie beyond the year 2262 (by the largest of the column).
    """
    import pandas as pd

    if column not in df.columns:
        raise BadInput(
            f"{source}: no column {column!r}, which data.time_column or data.date_column names. Add it, or remove that."
        )
    is_date = pd.api.types.is_datetime64_any_dtype(df[column])
    seconds = _since_1970(df[column]) if is_date else _mixed_times(df[column])
    unread = seconds.isna() | (seconds.abs() > LATEST)
    if unread.any():
        raise BadInput(
            f"{source}: {_rows(unread)}: {column!r} is no time ({df[column][unread].iloc[0]!r}). Give an ISO date or "
            "unix seconds."
        )
    return seconds


def _mixed_times(values: pd.Series) -> pd.Series[float]:
    import pandas as pd

    numbers = pd.Series([_unix_number(value) for value in values], index=values.index, dtype=float)
    unit = 1.0
    while numbers.abs().max() / unit > LATEST and unit < 1e9:
        unit *= 1000
    numbers /= unit
    dates = values[numbers.isna()].map(lambda value: value if table_values.is_missing(value) else str(value))
    return numbers.fillna(_since_1970(dates)) if len(dates) else numbers


def _since_1970(dates: pd.Series) -> pd.Series[float]:
    import pandas as pd

    read = pd.to_datetime(dates, errors="coerce", utc=True, format="ISO8601")
    return (read - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds()


def _unix_number(value: object) -> float | None:
    """A value as a number; None for a date that is written in digits alone (2026, 20260131)."""
    if isinstance(value, str) and _DIGITS_OF_A_DATE.fullmatch(value.strip()):
        return None
    return None if isinstance(value, bool) else _number(value)


def _number(value: object) -> float | None:
    """A finite number, or one in text; None for anything else."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        number = float(value) if isinstance(value, (str, int, float, np.number, Decimal)) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _check_column(df: pd.DataFrame, source: str, column: str) -> None:
    if column not in df.columns:
        raise BadInput(f"{source}: no column {column!r} (it has {', '.join(map(str, df.columns))}). Add or rename it.")


def _check_filled(values: pd.Series, source: str, column: str) -> None:
    missing = values.isna()
    if missing.any():
        raise BadInput(f"{source}: {_rows(missing)}: missing (NaN) {column!r}. Fill it in or drop the row.")
    empty = values.map(lambda value: shows_nothing(str(value)))
    if empty.any():
        raise BadInput(f"{source}: {_rows(empty)}: empty {column!r}. Fill it in or drop the row.")


def _check_labels(values: pd.Series, source: str, column: str, labels: Collection[str]) -> None:
    outside = ~values.isin(list(labels))
    if outside.any():
        shown = ", ".join(repr(value) for value in values[outside].unique()[:MAX_NAMED_ROWS])
        raise BadInput(
            f"{source}: {_rows(outside)}: {column!r} {shown} is not in the label set ({', '.join(sorted(labels))}). "
            "Correct the row, or add the label to the use case."
        )


def _check_unique(values: pd.Series, source: str, column: str) -> None:
    double = values.duplicated(keep=False)
    if double.any():
        shown = ", ".join(repr(value) for value in values[double].unique()[:MAX_NAMED_ROWS])
        raise BadInput(f"{source}: {_rows(double)}: duplicate {column!r} {shown}. Give every row its own, or drop one.")


def _rows(bad: Iterable[bool]) -> str:
    numbers = [number for number, is_bad in enumerate(bad, start=1) if is_bad]
    more = f" and {len(numbers) - MAX_NAMED_ROWS} more" if len(numbers) > MAX_NAMED_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MAX_NAMED_ROWS]))}{more}"
