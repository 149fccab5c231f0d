"""Reads and writes tables by URI: Parquet, CSV and JSON lines. It checks no row (see `leastwise.rows`)."""

from __future__ import annotations

import codecs
import hashlib
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores import storage
from leastwise.stores.storage import files_below, opened, write_bytes
from leastwise.stores.tables import table_formats
from leastwise.stores.uris import is_s3, local_path

if TYPE_CHECKING:
    import pandas as pd

_READERS: dict[str, Callable[[IO[bytes]], Iterator[pd.DataFrame]]] = {
    ".parquet": table_formats.parquet_blocks,
    ".csv": table_formats.csv_blocks,
    ".jsonl": table_formats.json_lines_blocks,
}


PART = "part"  # attribute of a block: its file, where a folder is read


def read_table(uri: str | Path) -> pd.DataFrame:
    """A data frame from `.parquet`, `.csv` (every column text, empty cells missing) or `.jsonl`, each value as written.

    Text is UTF-8, with or without a byte-order mark. BadInput names the file, and the line of what cannot be read.
    """
    import pandas as pd

    blocks = list(read_blocks(uri))
    return pd.concat(blocks) if len(blocks) > 1 else blocks[0]


def read_blocks(uri: str | Path, parts: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """The same table a block of rows at a time, its index going on through the blocks; at least one, if without rows.

    It takes the memory of a block, however long the table is. An S3 object is downloaded, for as long as it is read.
    A folder or prefix is one table of all the files below it, in the order of their names (`date=2026-11-26/…`), or of
    these `parts`: a folder that grows is the same to whoever reads it twice.
    """
    at, without_rows = 0, None
    for part in parts or parts_of(str(uri)):
        is_below = part != str(uri)
        for block in _blocks_of(part, is_below):
            if not len(block):
                without_rows = block if without_rows is None else without_rows
                continue
            block.index = block.index + at
            block.attrs.update({PART: without_secrets(part)} if is_below else {})
            at += len(block)
            yield block
    if not at and without_rows is not None:
        yield without_rows


def parts_of(uri: str) -> list[str]:
    """The files of a table: itself, or those below a folder; what is hidden or being written (`.part-…`) is none."""
    if is_file(uri):
        return [uri]
    below = files_below(uri)
    shown, kinds = without_secrets(uri), ", ".join(_READERS)
    if not below and not _is_folder(uri):
        raise BadInput(f"{shown}: unknown kind of table. Use a file ending in {kinds}, or a folder of such.")
    parts = [part for part in below if _is_table(part)]
    if not parts:
        raise BadInput(
            f"{shown}: a folder without a table. Put files ending in {kinds} there; an endpoint's log has its first "
            "part a minute after its first request."
        )
    return parts


def sha256(uri: str | Path, parts: Sequence[str] = ()) -> str:
    """Hex digest of a table's file; of a folder or prefix that of its names and digests (of these `parts` alone),
    whatever lies beside tables and while a part is being written.
    """
    uri = str(uri)
    parts = parts or parts_of(uri)
    if list(parts) == [uri]:
        return storage.sha256(uri)
    root = uri.rstrip("/") if is_s3(uri) else str(local_path(uri))
    digests = {part.removeprefix(root).lstrip("/"): storage.sha256(part) for part in parts}
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


@contextmanager
def part_named(block: pd.DataFrame) -> Iterator[None]:
    """A BadInput for rows of a folder, which count through all its files, names the file they are in."""
    try:
        yield
    except BadInput as error:
        if PART not in block.attrs:
            raise
        raise BadInput(f"{error} [in {block.attrs[PART]}; rows count through all files of the folder]") from error


def is_file(uri: str) -> bool:
    """Whether a table is one file; a folder may be named like one (as Spark names it), a prefix of S3 may not."""
    return _is_table(uri) and not _is_folder(uri)


def _is_folder(uri: str) -> bool:
    return not is_s3(uri) and local_path(uri).is_dir()


def _is_table(uri: str) -> bool:
    return posixpath.splitext(uri)[1].lower() in _READERS


def _blocks_of(uri: str, is_below: bool) -> Iterator[pd.DataFrame]:
    shown = without_secrets(uri)
    reader = _READERS[posixpath.splitext(uri)[1].lower()]
    with opened(uri) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise BadInput(f"{shown}: is UTF-16. Save it as UTF-8.")
        file.seek(0)
        blocks = _begun(reader, file)
        while (block := _next(blocks, shown, is_below)) is not None:
            yield block


def _begun(reader: Callable[[IO[bytes]], Iterator[pd.DataFrame]], file: IO[bytes]) -> Iterator[pd.DataFrame]:
    """What a reader yields; it begins, and finds its first faults, with the first block."""
    yield from reader(file)


def _next(blocks: Iterator[pd.DataFrame], shown: str, is_below: bool) -> pd.DataFrame | None:
    try:
        return next(blocks, None)
    except BadInput as error:
        raise BadInput(f"{shown}: {error}") from error
    except Exception as error:  # each library raises its own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "Write the file again or fix it" + (", or move it out of the folder." if is_below else ".")
        raise BadInput(f"{shown}: unreadable table ({reason}). {remedy}") from error


def write_table(table: pd.DataFrame, uri: str | Path) -> None:
    """Write a table as Parquet, in one step: a reader never sees half of it."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(uri, buffer.getvalue())
