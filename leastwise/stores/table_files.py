"""Reads and writes tables by URI: Parquet, CSV and JSON lines. It checks no row (see `leastwise.rows`)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.stores.storage import read_bytes, write_bytes
from leastwise.stores.uris import without_secrets

if TYPE_CHECKING:
    import pandas as pd


def read_table(uri: str | Path) -> pd.DataFrame:
    """A data frame from `.parquet`, `.csv` (UTF-8, every column text, only empty cells missing) or `.jsonl`."""
    import pandas as pd

    readers: dict[str, Callable[[BytesIO], pd.DataFrame]] = {
        ".parquet": pd.read_parquet,
        ".csv": lambda data: pd.read_csv(data, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig"),
        ".jsonl": lambda data: pd.read_json(data, lines=True, dtype=False, convert_dates=False),
    }
    reader = readers.get(posixpath.splitext(str(uri))[1].lower())
    if reader is None:
        raise BadInput(
            f"{without_secrets(str(uri))}: unknown kind of table. Use a file ending in {', '.join(readers)}."
        )
    data = read_bytes(uri)
    try:
        return reader(BytesIO(data))
    except Exception as error:  # each reader raises its own kinds: pyarrow, pandas, UnicodeDecodeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"{without_secrets(str(uri))}: unreadable table ({reason}). Write the file again or fix it."
        ) from error


def write_table(table: pd.DataFrame, uri: str | Path) -> None:
    """Write a table as Parquet, in one step: a reader never sees half of it."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(uri, buffer.getvalue())
