"""Plain checks of rows before anything is spent: columns, missing values, labels, ids, grades and times.

It looks at no content beyond that (see `leastwise.rows.data_quality`) and repairs nothing: BadInput names the row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.stores.tables import table_values
from leastwise.use_case.data import Data

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


def check_paraphrases(frame: pd.DataFrame, gate: pd.DataFrame | None, source: str) -> None:
    """Each says which gate row it paraphrases, or BadInput; several may paraphrase one."""
    gate_ids = set() if gate is None else set(gate["id"].astype(str))
    ids = frame["id"].astype(str) if "id" in frame else frame["text"].map(lambda _: "")
    unknown = ~ids.isin(gate_ids)
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise BadInput(
            f"{source}: row {row + 1}: id {ids.iloc[row]!r} is no row of data.gate; "
            "give the id of the row it paraphrases"
        )


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
        dates = held[numbers.isna()].map(lambda value: value if table_values.is_missing(value) else str(value))
        seconds = _since_1970(dates).reindex(held.index) if len(dates) else numbers
    is_number = numbers.notna()
    unread = ~is_number & (seconds.isna() | (seconds.abs() > LATEST))
    if unread.any():
        raise _no_time(source, _rows(unread), column, held[unread].iloc[0])
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
        raise _no_time(source, _rows(late.tolist()), parts[0].column, float(values[late][0]))
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
    import pandas as pd

    missing = values.isna()
    if missing.any():
        raise BadInput(f"{source}: {_rows(missing)}: missing (NaN) {column!r}. Fill it in or drop the row.")
    empty = pd.Series([not str(value).strip() for value in values.tolist()], values.index)
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
    return named_rows([number for number, is_bad in table_values.numbered(bad) if is_bad])


def named_rows(numbers: Sequence[int]) -> str:
    """These rows, the first five of them by their number."""
    more = f" and {len(numbers) - MAX_NAMED_ROWS} more" if len(numbers) > MAX_NAMED_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MAX_NAMED_ROWS]))}{more}"


def units_of(raw: pd.DataFrame, data: Data, name: str, source: str) -> pd.Series | None:
    """Each row's unit. Groups of split_by are a rule of ours, so only gate rows must have one: elsewhere, and where it
    is empty, a row is a unit of its own.
    """
    column = str(data.unit_by)
    if not data.counts_groups:
        _check_units(raw, column, source)
        return raw[column]
    if column not in raw and name != "gate":
        return None
    if column not in raw:
        raise BadInput(
            f"{source}: no column {column!r}, which data.split_by names as the group of its rows; add it, or "
            f"correct or remove data.split_by (columns: {', '.join(map(str, raw.columns))})"
        )
    return raw[column].where(raw[column].notna(), [f"row {number}" for number in raw.index])


def _check_units(raw: pd.DataFrame, column: str, source: str) -> None:
    if column not in raw:
        raise BadInput(
            f"{source}: no column {column!r}, which data.unit_by names as the unit of its rows; add it, or correct or "
            f"remove data.unit_by (columns: {', '.join(map(str, raw.columns))})"
        )
    missing = raw[column].isna().to_numpy()
    if missing.any():
        row = int(missing.argmax()) + 1
        raise BadInput(f"{source}: row {row} has no {column!r}, the unit it belongs to (data.unit_by); fill it in")
