"""Reads and writes tables by URI: Parquet, CSV and JSON lines. It checks no row (see `leastwise.rows`)."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores.storage import files_below, opened, write_bytes
from leastwise.stores.tables import table_formats

if TYPE_CHECKING:
    import pandas as pd

_READERS: dict[str, Callable[[IO[bytes]], Iterator[pd.DataFrame]]] = {
    ".parquet": table_formats.parquet_blocks,
    ".csv": table_formats.csv_blocks,
    ".jsonl": table_formats.json_lines_blocks,
}


def read_table(uri: str | Path) -> pd.DataFrame:
    """A data frame from `.parquet`, `.csv` (every column text, empty cells missing) or `.jsonl`, each value as written.

    Text is UTF-8, with or without a byte-order mark. BadInput names the file, and the line of what cannot be read.
    """
    import pandas as pd

    blocks = list(read_blocks(uri))
    return pd.concat(blocks) if len(blocks) > 1 else blocks[0]


def read_blocks(uri: str | Path) -> Iterator[pd.DataFrame]:
    """The same table a block of rows at a time, its index going on through the blocks; at least one, if without rows.

    It takes the memory of a block, however long the table is. An S3 object is downloaded, for as long as it is read.
    A folder or prefix is one table of all the files below it, in the order of their names (`date=2026-11-26/…`).
    """
    at = 0
    for part in _parts(str(uri)):
        for block in _blocks_of(part):
            block.index = block.index + at
            at += len(block)
            yield block


def _parts(uri: str) -> list[str]:
    """The files of a table: itself, or those below a folder; what is hidden or being written (`.part-…`) is none."""
    if _is_table(uri):
        return [uri]
    below = files_below(uri)
    shown, kinds = without_secrets(uri), ", ".join(_READERS)
    if not below:
        raise BadInput(f"{shown}: unknown kind of table. Use a file ending in {kinds}, or a folder of such.")
    parts = [part for part in below if _is_table(part)]
    if not parts:
        raise BadInput(f"{shown}: a folder without a table. Put files ending in {kinds} there.")
    return parts


def _is_table(uri: str) -> bool:
    return posixpath.splitext(uri)[1].lower() in _READERS


def _blocks_of(uri: str) -> Iterator[pd.DataFrame]:
    shown = without_secrets(uri)
    reader = _READERS[posixpath.splitext(uri)[1].lower()]
    with opened(uri) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise BadInput(f"{shown}: is UTF-16. Save it as UTF-8.")
        file.seek(0)
        blocks = _begun(reader, file)
        while (block := _next(blocks, shown)) is not None:
            yield block


def _begun(reader: Callable[[IO[bytes]], Iterator[pd.DataFrame]], file: IO[bytes]) -> Iterator[pd.DataFrame]:
    """What a reader yields; it begins, and finds its first faults, with the first block."""
    yield from reader(file)


def _next(blocks: Iterator[pd.DataFrame], shown: str) -> pd.DataFrame | None:
    try:
        return next(blocks, None)
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
