"""Plain checks of rows before anything is spent: columns, missing values, labels, ids, grades and units.

It looks at no content beyond that (see `leastwise.rows.data_quality`) and repairs nothing: BadInput names the row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.reading.request_log import is_log
from leastwise.stores.tables.drawn_rows import say_once
from leastwise.stores.tables.table_values import MAX_NAMED_ROWS, as_number, is_missing, is_text, named
from leastwise.text_forms import shows_nothing
from leastwise.use_case.data import Data

if TYPE_CHECKING:
    import pandas as pd


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


def check_named_columns(data: Data, reads: Iterable[Callable[[], object]], seen: Collection[str]) -> None:
    """BadInput for a column that the use case names and no table has, where one of the standard name would be taken
    for it: `seen` has the columns of every table once `reads` have read them all, or said why not.
    """
    for read in reads:
        read()
    for field, standard in {"text_column": "text", "label_column": "label"}.items():
        name = getattr(data, field)
        if name not in seen and standard in seen:
            raise BadInput(
                f"data.{field}: no table has a column {name!r}; correct it, or leave it out to take {standard!r}"
            )


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
            f"{source}: {named(missing)}: missing (NaN) 'answer'. Give the answer that was graded, empty if it was."
        )
    values = [as_number(grade) for grade in df["grade"]]
    outside = [value is None or not 0 <= value <= 1 for value in values]
    if any(outside):
        first = df["grade"].iloc[outside.index(True)]
        raise BadInput(
            f"{source}: {named(outside)}: 'grade' {first!r} is no number in 0..1. Scale the grades, 1 being best."
        )
    return [value for value in values if value is not None]


def _check_column(df: pd.DataFrame, source: str, column: str) -> None:
    if column not in df.columns:
        remedy = "Add or rename it."
        if column == "label" and is_log(df.columns):
            remedy = (
                "It is an endpoint's log, and what a model answered is no expected answer: add a column with those."
            )
        raise BadInput(f"{source}: no column {column!r} (it has {', '.join(map(str, df.columns))}). {remedy}")


def _check_filled(values: pd.Series, source: str, column: str) -> None:
    import pandas as pd

    missing = values.isna()
    if missing.any():
        raise BadInput(f"{source}: {named(missing)}: missing (NaN) {column!r}. Fill it in or drop the row.")
    empty = pd.Series([shows_nothing(str(value)) for value in values.tolist()], values.index)
    if empty.any():
        raise BadInput(f"{source}: {named(empty)}: empty {column!r}. Fill it in or drop the row.")


def _check_labels(values: pd.Series, source: str, column: str, labels: Collection[str]) -> None:
    outside = ~values.isin(list(labels))
    if outside.any():
        shown = ", ".join(repr(value) for value in values[outside].unique()[:MAX_NAMED_ROWS])
        raise BadInput(
            f"{source}: {named(outside)}: {column!r} {shown} is not in the label set ({', '.join(sorted(labels))}). "
            "Correct the row, or add the label to the use case."
        )


def _check_unique(values: pd.Series, source: str, column: str) -> None:
    double = values.duplicated(keep=False)
    if double.any():
        shown = ", ".join(repr(value) for value in values[double].unique()[:MAX_NAMED_ROWS])
        raise BadInput(f"{source}: {named(double)}: duplicate {column!r} {shown}. Give every row its own, or drop one.")


def without_label(df: pd.DataFrame) -> pd.Series:
    """Which rows have no expected answer: no such column, a missing value, or one that shows nothing."""
    import pandas as pd

    if "label" not in df:
        return pd.Series(True, index=df.index)
    labels = df["label"]
    if is_text(labels):  # of few different ones, mostly
        return labels.isna() | labels.isin([label for label in labels.dropna().unique() if shows_nothing(label)])
    lacking = [is_missing(label) or (isinstance(label, str) and shows_nothing(label)) for label in labels]
    return pd.Series(lacking, index=df.index, dtype=bool)


def units_of(
    raw: pd.DataFrame, data: Data, name: str, source: str, may_lack: bool = False
) -> pd.Series | list[str] | None:
    """Each row's unit. Groups of split_by are a rule of ours, so only gate rows must have one: elsewhere, and where it
    is empty, a row is a unit of its own. So it is in a table that `may_lack` the column.
    """
    column, own = str(data.unit_by), [f"row {number}" for number in raw.index]
    if may_lack and column not in raw:
        say_once(f"{source}: has no column {column!r} (data.unit_by), so each request counts as one example")
        return own
    if not data.counts_groups and not may_lack:
        _check_units(raw, column, source)
        return raw[column]
    if column not in raw and name != "gate":
        return None
    if column not in raw:
        raise BadInput(
            f"{source}: no column {column!r}, which data.split_by names as the group of its rows; add it, or "
            f"correct or remove data.split_by (columns: {', '.join(map(str, raw.columns))})"
        )
    return raw[column].where(raw[column].notna(), own)


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
