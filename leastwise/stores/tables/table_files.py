"""Reads and writes tables by URI: Parquet, CSV and JSON lines. It checks no row (see `leastwise.rows`)."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.stores.storage import read_bytes, write_bytes
from leastwise.stores.tables import table_formats
from leastwise.stores.uris import without_secrets

if TYPE_CHECKING:
    import pandas as pd

_READERS: dict[str, Callable[[bytes], pd.DataFrame]] = {
    ".parquet": table_formats.from_parquet,
    ".csv": table_formats.from_csv,
    ".jsonl": table_formats.from_json_lines,
}


def read_table(uri: str | Path) -> pd.DataFrame:
    """A data frame from `.parquet`, `.csv` (every column text, empty cells missing) or `.jsonl`, each value as written.

    Text is UTF-8, with or without a byte-order mark. BadInput names the file, and the line of what cannot be read.
    """
    shown = without_secrets(str(uri))
    reader = _READERS.get(posixpath.splitext(str(uri))[1].lower())
    if reader is None:
        raise BadInput(f"{shown}: unknown kind of table. Use a file ending in {', '.join(_READERS)}.")
    data = read_bytes(uri)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput(f"{shown}: is UTF-16. Save it as UTF-8.")
    try:
        return reader(data)
    except BadInput as error:
        raise BadInput(f"{shown}: {error}") from error
    except Exception as error:  # each library raises its own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{shown}: unreadable table ({reason}). Write the file again or fix it.") from error


def write_table(table: pd.DataFrame, uri: str | Path) -> None:
    """Write a table as Parquet, in one step: a reader never sees half of it."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(uri, buffer.getvalue())
