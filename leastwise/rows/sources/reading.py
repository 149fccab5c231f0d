"""Sources read by their shape, and put together: files, folders, and rows that were read elsewhere (MLflow).

A shape is told by its fields alone; what was taken for what is said, so that a wrong guess is seen and overridden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.rows.sources import chats, evals, exports, files, folders, promptfoo, tables
from leastwise.rows.sources.plain import LABEL, SPLIT, TEXT, Columns, Plain, key_of
from leastwise.stores import storage
from leastwise.stores.uris import is_s3, local_path

if TYPE_CHECKING:
    import pandas as pd

Elsewhere = Mapping[str, "pd.DataFrame"]  # rows of sources that are no files, by the name they were given


def read(sources: Sequence[str], columns: Columns, elsewhere: Elsewhere | None = None) -> list[Plain]:
    """Every source as plain rows; BadInput with all that is wrong of any."""
    read_so_far: list[Plain] = []

    def one(source: str) -> None:
        given = (elsewhere or {}).get(source)
        read_so_far.extend([_of_table(given, columns, source)] if given is not None else _of_uri(source, columns))

    refuse(problems_of(partial(one, source) for source in sources))
    return read_so_far


def digest_of(plain: Plain) -> str:
    """SHA-256 of a source's file; of rows that lie in MLflow, of what they say in the order of it."""
    if file := plain.settings.get("file"):
        return storage.sha256(file)
    said = sorted(json.dumps([text, label]) for text, label in zip(plain.rows[TEXT], plain.rows[LABEL], strict=True))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _is_folder(source: str) -> bool:
    return source.endswith("/") if is_s3(source) else local_path(source).is_dir()


def _of_uri(source: str, columns: Columns) -> list[Plain]:
    if _is_folder(source):
        names = folders.class_names(source)
        parts = [(uri, folders.split_of(uri)) for uri in folders.tables_below(source)]
        return [_of_file(uri, columns, split, names) for uri, split in parts]
    if not storage.exists(source):
        raise BadInput(f"{source}: no such file or folder; correct the path")
    split = folders.split_of(source)
    return [_of_file(source, columns, split if split in UNJUDGED else "", {})]


UNJUDGED = ("unlabeled", "unlabelled", "unsupervised", "traffic", "requests")


def _of_file(uri: str, columns: Columns, split: str, names: folders.Names) -> Plain:
    raw = files.read_file(uri)
    if raw.record is not None:
        plain = promptfoo.from_yaml(raw.record, columns, uri)
    else:
        plain = _of_table(raw.table, columns, uri, names)
    if split:
        plain.rows[SPLIT] = split
    return Plain(
        plain.shape, plain.rows, plain.chosen, plain.notes, plain.instruction, {"file": uri, "written": raw.said}
    )


def _of_table(table: pd.DataFrame, columns: Columns, source: str, names: folders.Names | None = None) -> Plain:
    if table.empty:
        raise BadInput(f"{source}: no rows; add some, or leave the source out")
    shape = _shape_of([str(name) for name in table.columns])
    table = table.reset_index(drop=True)
    return tables.from_table(table, columns, source, names) if shape is None else shape(table, columns, source)


def _shape_of(names: Sequence[str]) -> Callable[[pd.DataFrame, Columns, str], Plain] | None:
    """How rows with these fields are read; None: as a plain table."""
    held = set(names)
    if held & set(chats.FIELDS):
        return chats.from_chats
    if "item" in held:
        return evals.from_items
    if {"input", "ideal"} <= held:
        return evals.from_samples
    if {"inputs", "expectations"} <= held:
        return exports.from_mlflow
    if "input" in held and "expectedoutput" in {key_of(name) for name in held}:
        return exports.from_langfuse
    return promptfoo.from_csv if promptfoo.is_csv(names) else None
