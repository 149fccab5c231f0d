"""Plain checks of rows before anything is spent: columns, missing values, labels, ids, grades and times.

It looks at no content beyond that (see `leastwise.rows.data_quality`) and repairs nothing: BadInput names the row.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED_ROWS = 5


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


def check_grades(df: pd.DataFrame, source: str) -> None:
    """Raises `BadInput` where the columns `answer` and `grade` are missing, or a grade is no number in 0..1."""
    for column in ("answer", "grade"):
        _check_column(df, source, column)
    missing = df["answer"].isna()
    if missing.any():
        raise BadInput(
            f"{source}: {_rows(missing)}: missing (NaN) 'answer'. Give the answer that was graded, empty if it was."
        )
    outside = ~df["grade"].map(lambda grade: isinstance(grade, (int, float)) and 0 <= grade <= 1)
    if outside.any():
        first = df["grade"][outside].iloc[0]
        raise BadInput(
            f"{source}: {_rows(outside)}: 'grade' {first!r} is no number in 0..1. Scale the grades, 1 being best."
        )


def unix_seconds(df: pd.DataFrame, column: str, source: str) -> pd.Series[float]:
    """A column of dates or unix seconds as unix seconds; BadInput names the first row that is neither."""
    import pandas as pd

    if column not in df.columns:
        raise BadInput(
            f"{source}: no column {column!r}, which data.time_column names. Add it, or remove data.time_column."
        )
    if pd.api.types.is_numeric_dtype(df[column]):
        seconds = df[column].astype(float)
    else:
        dates = pd.to_datetime(df[column], errors="coerce", utc=True, format="ISO8601")
        seconds = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    unread = seconds.isna()
    if unread.any():
        raise BadInput(f"{source}: {_rows(unread)}: {column!r} is no time. Give an ISO date or unix seconds.")
    return seconds


def _check_column(df: pd.DataFrame, source: str, column: str) -> None:
    if column not in df.columns:
        raise BadInput(f"{source}: no column {column!r} (it has {', '.join(map(str, df.columns))}). Add or rename it.")


def _check_filled(values: pd.Series, source: str, column: str) -> None:
    missing = values.isna()
    if missing.any():
        raise BadInput(f"{source}: {_rows(missing)}: missing (NaN) {column!r}. Fill it in or drop the row.")
    empty = values.map(lambda value: not str(value).strip())
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


def _rows(bad: pd.Series[bool]) -> str:
    numbers = [number for number, is_bad in enumerate(bad, start=1) if is_bad]
    more = f" and {len(numbers) - MAX_NAMED_ROWS} more" if len(numbers) > MAX_NAMED_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MAX_NAMED_ROWS]))}{more}"
