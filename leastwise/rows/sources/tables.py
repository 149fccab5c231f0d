"""A plain table: a column of texts, one of expected answers, and whatever else; the rows of any file are one at last.

Datasets of Hugging Face and DSPy, exports of a ticket system, a sheet saved as CSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leastwise.rows.sources.choosing import choose
from leastwise.rows.sources.plain import Columns, Plain, as_value, asked, joined, named, plain_rows

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("time", "timestamp", "created_at", "createdat", "date")


def from_table(
    table: pd.DataFrame, columns: Columns, source: str, names: Mapping[str, Mapping[str, str]] | None = None
) -> Plain:
    """The rows of a table; `names`: those of a column's numbers, as a data set's card has them."""
    chosen = choose(table, columns, source)
    where = [f"{source}: row {at}" for at in range(1, len(table) + 1)]
    records = [{str(name): value for name, value in record.items()} for record in table.to_dict("records")]
    texts = [
        asked(joined(record, chosen.text, at), "", at, "--text-column")
        for record, at in zip(records, where, strict=True)
    ]
    labels = [as_value(record[chosen.label]) if chosen.label else None for record in records]
    if chosen.label and names and chosen.label in names:
        known = names[chosen.label]
        labels = [known.get(named(label) or "", None if named(label) == "-1" else label) for label in labels]
    time = columns.time_column or next((str(name) for name in table.columns if str(name).lower() in TIMES), "")
    rows = plain_rows(
        texts,
        labels,
        where,
        [record[chosen.split] for record in records] if chosen.split else None,
        [record[columns.split_by] for record in records] if columns.split_by else None,
        [record[time] for record in records] if time in table.columns else None,
    )
    said = {"text": chosen.text, "label": chosen.label or "(none)", "split": chosen.split or ""}
    said |= {"group": columns.split_by, "time": time}
    return Plain("table", rows, {what: column for what, column in said.items() if column})
