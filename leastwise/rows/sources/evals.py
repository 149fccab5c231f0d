"""OpenAI evals, a line each: `{"item": {…}}`, and the older `{"input": [messages], "ideal": …}`.

An item is a record of fields: which is asked and which is expected is chosen as in any table. No grader is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.sources.chats import from_chats
from leastwise.rows.sources.plain import Columns, Plain, as_value, asked, plain_rows
from leastwise.rows.sources.tables import from_table
from leastwise.stores.tables.table_values import named_rows

if TYPE_CHECKING:
    import pandas as pd


def from_items(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """The rows of items; BadInput names those that are no record."""
    import pandas as pd

    items = [as_value(value) for value in table["item"]]
    if wrong := [at for at, item in enumerate(items, 1) if not isinstance(item, dict)]:
        raise BadInput(f"{source}: {named_rows(wrong)}: 'item' is no record of fields")
    records = [item for item in items if isinstance(item, dict)]
    names = list(dict.fromkeys(name for record in records for name in record))
    held = pd.DataFrame({name: pd.Series([each.get(name) for each in records], dtype=object) for name in names})
    plain = from_table(held, columns.model_copy(update=_bare(columns)), source)
    return Plain("OpenAI evals (item)", plain.rows, {what: f"item.{name}" for what, name in plain.chosen.items()})


def _bare(columns: Columns) -> dict[str, str]:
    """Columns as a person may have written them: `item.text` is the field `text`."""
    return {name: value.removeprefix("item.") for name, value in columns.model_dump().items()}


def from_samples(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """The rows of samples with `input` and `ideal`; where the input is a chat, what its system message says of all is
    the instruction.
    """
    import pandas as pd

    inputs, ideals = [as_value(value) for value in table["input"]], [as_value(value) for value in table["ideal"]]
    if all(isinstance(value, list) for value in inputs):
        held = [list(value) for value in inputs if isinstance(value, list)]
        # The last thing said is the question, so the ideal answer stands after it.
        chats = from_chats(pd.DataFrame({"messages": pd.Series(held, dtype=object)}), Columns(), source)
        texts: list[object] = list(chats.rows["text"])
        notes, instruction = chats.notes, chats.instruction
    else:
        texts = [asked(value, "", f"{source}: row {at}", "--text-column") for at, value in enumerate(inputs, 1)]
        notes, instruction = (), ""
    at = [f"{source}: row {row}" for row in range(1, len(table) + 1)]
    groups = list(table[columns.split_by]) if columns.split_by in table else None
    rows = plain_rows(texts, ideals, at, groups=groups)
    return Plain("OpenAI evals (input, ideal)", rows, {"text": "input", "label": "ideal"}, notes, instruction)
