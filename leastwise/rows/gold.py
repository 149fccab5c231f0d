"""Gold documents: which documents answer a row, as `data.gold_column` says, held against the documents there are.

A row may name none: then it does not count where retrieval is measured. It searches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.stores.tables import table_values
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

GOLD = "leastwise_gold"  # the column of data.gold_column under a name no table has: a JSON list of ids
NAMED = ("gate", "dev", "test", "train")


def written(values: Iterable[object], column: str, source: str) -> list[str]:
    """The ids of each row as a JSON list; BadInput names the row whose value is neither an id nor a list of ids."""
    rows = []
    for row, value in table_values.numbered(values):
        ids = [int(each) if isinstance(each, float) and each.is_integer() else each for each in _listed(value)]
        if not all(isinstance(each, (str, int)) for each in ids):
            raise BadInput(
                f"{source}: row {row}: {column!r} {str(value)[:60]!r} is neither an id, a list of ids nor its JSON; "
                "correct it"
            )
        rows.append(json.dumps([str(each) for each in ids]))
    return rows


def _listed(value: object) -> list[object]:
    import numpy as np

    if value is None or (isinstance(value, float) and np.isnan(value)):
        return []
    if isinstance(value, (list, tuple, np.ndarray)):
        return [each.item() if isinstance(each, np.generic) else each for each in value]
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _parsed(value)
    return [value.item() if isinstance(value, np.generic) else value]


def _parsed(value: str) -> list[object]:
    try:
        ids = json.loads(value)
    except ValueError:
        return [None]
    return ids if isinstance(ids, list) else [None]


def of(rows: pd.DataFrame) -> list[frozenset[str]]:
    """The ids of the documents that answer each row; empty where it names none."""
    if GOLD not in rows:
        return [frozenset() for _ in range(len(rows))]
    return [frozenset(json.loads(ids)) for ids in rows[GOLD]]


def check(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput for rows without any gold, or a row that names a document which is not there; `table` gives one by name.

    Only the gate rows (for `mode: auto` also the dev rows) must name gold at all.
    """
    data, mode = use_case.data, use_case.retrieval.mode
    if not data.gold_column:
        return
    documents = table("documents")
    document_ids = set() if documents is None else {str(row_id) for row_id in documents["id"]}
    for name in NAMED:
        rows, source = table(name), f"data.{name} ({getattr(data, name)})"
        if rows is None:
            continue
        if not any(of(rows)) and (name == "gate" or (name == "dev" and mode == "auto")):
            raise BadInput(
                f"{source}: no row has ids in the column {data.gold_column!r}, which data.gold_column names; add them, "
                "or remove it"
            )
        for row, ids in enumerate(of(rows), 1):
            if unknown := sorted(ids - document_ids):
                raise BadInput(
                    f"{source}: row {row}: {data.gold_column} names the document {unknown[0]!r}, which data.documents "
                    f"({data.documents}) does not have; correct the id or add the document"
                )
