"""Times of a table as unix seconds, whichever way they are written; BadInput names the row that holds none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.stores.tables.table_values import as_number, is_missing, named

if TYPE_CHECKING:
    import pandas as pd

LATEST = 9.2e9  # seconds: in the year 2261, the last that dates in nanoseconds reach
_DIGITS_OF_A_DATE = re.compile(r"(?:1[6-9]|2[01])\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))?")  # YYYY, YYYYMMDD


@dataclass(frozen=True)
class Times:
    """Times of some rows as they are written: seconds for dates, numbers whose unit the largest of the table tells."""

    column: str
    values: npt.NDArray[np.float64]
    is_number: npt.NDArray[np.bool_]


def unix_seconds(df: pd.DataFrame, column: str, source: str) -> pd.Series[float]:
    """A column of times as unix seconds; BadInput names the first row that holds none.

    Dates in ISO form (without a zone: UTC), or unix time as numbers, in text too: seconds, or milli-, micro- or
    nanoseconds where seconds would lie beyond the year 2262 (by the largest of the column).
    """
    import pandas as pd

    return pd.Series(unix_seconds_of([times_of(df, column, source)], source), index=df.index)


def times_of(df: pd.DataFrame, column: str, source: str) -> Times:
    """A column of times, of all rows or a block of them; BadInput names the first row that holds none."""
    import pandas as pd

    if column not in df.columns:
        raise BadInput(
            f"{source}: no column {column!r}, which data.time_column or data.date_column names. Add it, or remove that."
        )
    held = df[column]
    if pd.api.types.is_datetime64_any_dtype(held):
        numbers, seconds = pd.Series(np.nan, index=held.index), _since_1970(held)
    elif held.dtype.kind in "iuf":
        numbers = seconds = held.astype(float).where(np.isfinite(held))
    else:
        numbers = pd.Series([_unix_number(value) for value in held], index=held.index, dtype=float)
        dates = held[numbers.isna()].map(lambda value: value if is_missing(value) else str(value))
        seconds = _since_1970(dates).reindex(held.index) if len(dates) else numbers
    is_number = numbers.notna()
    unread = ~is_number & (seconds.isna() | (seconds.abs() > LATEST))
    if unread.any():
        raise _no_time(source, named(unread), column, held[unread].iloc[0])
    values = np.asarray(numbers.where(is_number, seconds), dtype=np.float64)
    return Times(column, values, np.asarray(is_number, dtype=bool))


def unix_seconds_of(parts: Sequence[Times], source: str) -> npt.NDArray[np.float64]:
    """The unix seconds of a whole table, from the times of its blocks."""
    values, is_number = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "is_number"))
    largest, unit = float(np.abs(values[is_number]).max(initial=0.0)), 1.0
    while largest / unit > LATEST and unit < 1e9:
        unit *= 1000
    seconds: npt.NDArray[np.float64] = np.where(is_number, values / unit, values)
    late = np.abs(seconds) > LATEST
    if late.any():
        raise _no_time(source, named(late.tolist()), parts[0].column, float(values[late][0]))
    return seconds


def _no_time(source: str, rows: str, column: str, value: object) -> BadInput:
    return BadInput(f"{source}: {rows}: {column!r} is no time ({value!r}). Give an ISO date or unix seconds.")


def _since_1970(dates: pd.Series) -> pd.Series[float]:
    import pandas as pd

    read = pd.to_datetime(dates, errors="coerce", utc=True, format="ISO8601")
    return (read - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds()


def _unix_number(value: object) -> float | None:
    """A value as a number; None for a date that is written in digits alone (2026, 20260131)."""
    if isinstance(value, str) and _DIGITS_OF_A_DATE.fullmatch(value.strip()):
        return None
    return None if isinstance(value, bool) else as_number(value)
