"""Indexes written once under a hash of what they hold, and opened once. It searches nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leastwise.answering.retrieval.chunks import PART, in_parts
from leastwise.answering.retrieval.index import Index
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.models.encoder import embed, encoder_hash
from leastwise.models.machine import THREADS

if TYPE_CHECKING:
    import pandas as pd


def build_index(
    rows: pd.DataFrame,
    encoder: Path,
    out_dir: Path | str,
    *,
    threads: int = THREADS,
    cache: Path | None = None,
    characters: int = 0,
) -> Index:
    """Index `rows` (columns id, text, and label where there is one) under `out_dir`, a directory or an s3:// URI; what
    is longer than so many characters in parts, 0 for never.

    The index is kept under a hash of the rows and the encoder: the same rows and encoder reuse it, and an index that a
    crash left unfinished is built again. Raises BadInput for missing columns, no rows, duplicate ids or empty text.
    """
    import lancedb

    _check_rows(rows)
    rows = in_parts(rows, characters) if characters else rows
    index = Index(str(out_dir), index_key(rows, encoder), len(rows), encoder, threads, cache)
    database = lancedb.connect(index.uri)
    if not _is_finished(database, index):
        vectors = embed(rows["text"].tolist(), encoder, threads=threads, cache=cache)
        _write(database, index.key, rows, vectors)
    return index


def index_key(rows: pd.DataFrame, encoder: Path) -> str:
    """The name of an index: 24 hex digits that change with any id, text, label, the rows' order, where they were cut,
    or an encoder file.
    """
    columns = [name for name in ("id", "text", "label", PART) if name in rows]
    content = json.dumps([encoder_hash(encoder), columns, rows[columns].astype(object).values.tolist()], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _check_rows(rows: pd.DataFrame) -> None:
    if missing := {"id", "text"} - set(rows.columns):
        raise BadInput(f"index rows: column {', '.join(sorted(missing))} is missing; it has {', '.join(rows.columns)}")
    if rows.empty:
        raise BadInput("index rows: there are none; give at least one row to retrieve")
    if rows["id"].duplicated().any():
        raise BadInput(f"index rows: id {rows['id'][rows['id'].duplicated()].iloc[0]!r} occurs twice; make ids unique")
    blank = rows["text"].isna() | (rows["text"].astype(str).str.strip() == "")
    if blank.any():
        raise BadInput(f"index rows: row {rows['id'][blank].iloc[0]!r} has no text; fill it or drop it")


def _is_finished(database: Any, index: Index) -> bool:
    if index.key not in database.list_tables().tables:
        return False
    try:
        table = database.open_table(index.key)
    except ValueError:  # a folder without a version: its first writing was cut short
        return False
    except RuntimeError:  # a damaged file, over which nothing can be written
        database.drop_table(index.key)
        return False
    return table.count_rows() == index.rows and len(table.list_indices()) == 1


def _write(database: Any, key: str, rows: pd.DataFrame, vectors: np.ndarray) -> None:
    import pyarrow as pa
    from lancedb.index import FTS

    label = rows["label"] if "label" in rows else [None] * len(rows)
    strings = {name: pa.array(column, pa.string()) for name, column in (("text", rows["text"]), ("label", label))}
    vector = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    part = {"part": pa.array(rows[PART], pa.int32())} if PART in rows else {}
    data = pa.table({"id": pa.array(rows["id"].astype(str), pa.string()), **strings, **part, "vector": vector})
    table = database.create_table(key, data, mode="overwrite")
    table.create_index("text", config=FTS(num_workers=1))  # written last: its presence marks the table as finished


_opened: dict[str, Index] = {}  # by place and content: hashing all rows again at every look took longer than searching


def open_index(
    key: str, rows: Callable[[], pd.DataFrame], encoder: Path, folder: Path, cache: Path, characters: int = 0
) -> Index:
    """The index of some rows, built and opened once; `key` names their content."""
    cut = [str(characters)] if characters else []
    place = content_key(str(folder), key, encoder_hash(encoder), *cut)
    known = _opened.get(place)
    if known is None or not Path(known.uri, f"{known.key}.lance").exists():  # the state was deleted
        built = build_index(rows(), encoder, folder, threads=THREADS, cache=cache, characters=characters)
        _opened[place] = built
    return _opened[place]
