"""Exports of what watches systems: Langfuse's items (`input`, `expectedOutput`), MLflow's (`inputs`, `expectations`).

Only what somebody said should have been answered is an expected answer; what a model answered is none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import Columns, Plain, as_value, asked, joined, key_of, plain_rows

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = (
    "expectedresponse",
    "expectedoutput",
    "answer",
    "label",
    "intent",
    "category",
    "output",
    "response",
    "ideal",
)


def from_langfuse(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """Items of a Langfuse data set, from its CSV or JSON export."""
    expected = next(str(name) for name in table.columns if key_of(name) == "expectedoutput")
    shown = {"text": "input", "label": expected}
    return _nested(table, columns, source, "Langfuse", "input", expected, shown)


def from_mlflow(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """Records of an MLflow evaluation dataset, or traces with what people expected of them."""
    shown = {"text": "inputs", "label": "expectations"}
    return _nested(table, columns, source, "MLflow", "inputs", "expectations", shown)


def _nested(
    table: pd.DataFrame, columns: Columns, source: str, shape: str, inputs: str, expected: str, shown: dict[str, str]
) -> Plain:
    at = [f"{source}: row {row}" for row in range(1, len(table) + 1)]
    wanted_text, wanted_label = columns.text_column, columns.label_column
    for name in (inputs, expected):  # a whole field may be named, or one within it
        wanted_text, wanted_label = wanted_text.removeprefix(f"{name}."), wanted_label.removeprefix(f"{name}.")
    wanted_text = "" if wanted_text == inputs else wanted_text
    wanted_label = "" if wanted_label == expected else wanted_label
    texts = [asked(value, wanted_text, place, "--text-column") for value, place in zip(table[inputs], at, strict=True)]
    labels = [_expected(value, wanted_label, place) for value, place in zip(table[expected], at, strict=True)]
    groups = None
    if columns.split_by:
        metadata = table["metadata"] if "metadata" in table else [None] * len(table)
        groups = [_group(row, columns.split_by) for row in zip(table.to_dict("records"), metadata, strict=True)]
        if not any(groups):
            raise BadInput(f"{source}: no field {columns.split_by!r}, which --split-by names, in a row or its metadata")
    rows = plain_rows(texts, labels, at, groups=groups)
    shown |= {"text": columns.text_column or shown["text"], "label": columns.label_column or shown["label"]}
    return Plain(shape, rows, shown | ({"group": columns.split_by} if columns.split_by else {}))


def _group(row: tuple[Mapping[Hashable, object], object], name: str) -> object:
    record, metadata = row
    value = as_value(metadata)
    return record.get(name) or (value.get(name) if isinstance(value, dict) else None)


def _expected(value: object, wanted: str, where: str) -> object:
    """The expected answer in what was expected: the field named, the only one, the one that is called so, else all."""
    value = as_value(value)
    if not isinstance(value, dict) or not value:
        return value or None
    if wanted:
        return joined(value, wanted, where)
    if len(value) == 1 and key_of(next(iter(value))) in EXPECTED:
        return as_value(next(iter(value.values())))
    called = [name for each in EXPECTED[:2] for name in value if key_of(name) == each]
    return as_value(value[called[0]]) if called else value
