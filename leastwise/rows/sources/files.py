"""One file as a raw table, whatever it is written as: CSV, TSV, JSON lines, JSON, Parquet, YAML.

It recognises no shape (see `leastwise.rows.sources.reading`) and changes no value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.sources import dialects
from leastwise.stores import storage
from leastwise.stores.tables import table_files, table_formats
from leastwise.stores.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd

DELIMITED, LINES, YAML = (".csv", ".tsv", ".tab", ".txt"), (".jsonl", ".ndjson", ".json"), (".yaml", ".yml")
KINDS = (*DELIMITED, *LINES, ".parquet", *YAML)
NO_READER = {
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".xls": "save the sheet as CSV (UTF-8)",
    ".ods": "save the sheet as CSV (UTF-8)",
    ".gz": "unpack it",
    ".zip": "unpack it",
    ".arrow": "write it as Parquet",
}
SPLIT = "split"


@dataclass(frozen=True)
class Raw:
    """A table as its file has it, or the record that a YAML file is."""

    table: pd.DataFrame
    said: str
    record: Mapping[str, object] | None = None


def suffix_of(uri: str) -> str:
    """The ending of a path or URI, in small letters."""
    return Path(uri.rsplit("/", 1)[-1]).suffix.lower()


def read_file(uri: str) -> Raw:
    """A file as a table of values; BadInput names the file, and the row that cannot be read."""
    suffix = suffix_of(uri)
    if suffix in NO_READER:
        raise BadInput(f"{uri}: {suffix} is not read; {NO_READER[suffix]}")
    if suffix not in KINDS:
        raise BadInput(f"{uri}: unknown kind of file; use one ending in {', '.join(KINDS)}, or a folder of such")
    if suffix == ".parquet":
        return Raw(table_files.read_table(uri), "Parquet")
    body = storage.read_bytes(uri)
    try:
        if suffix in DELIMITED:
            written = dialects.read_csv(body)
            return Raw(written.table, f"CSV ({written.said})")
        if suffix in YAML:
            return _yaml(body, uri)
        return _json(body, is_lines=suffix != ".json")
    except BadInput as error:
        text = str(error)
        raise BadInput(text if text.startswith(uri) else f"{uri}: {text}") from None


def _yaml(body: bytes, uri: str) -> Raw:
    import pandas as pd

    value = read_yaml(body, uri)
    if isinstance(value, list):
        value = {"tests": value}
    if not isinstance(value, dict):
        raise BadInput("is no mapping; of YAML files promptfoo's are read")
    return Raw(pd.DataFrame(), "YAML", value)


def _json(body: bytes, is_lines: bool) -> Raw:
    """JSON lines, an array of objects, or an object that holds one array, or one for each split."""
    text, encoding = dialects.decoded(body)
    said = "JSON" if encoding == "utf-8" else f"JSON, {encoding}"
    start = text.lstrip("\ufeff \t\r\n")
    if not is_lines and start[:1] == "{" and _is_one_object(start):
        return Raw(_of_splits(json.loads(start)), said)
    import pandas as pd

    blocks = list(table_formats.json_lines_blocks(BytesIO(start.encode())))
    return Raw(pd.concat(blocks) if len(blocks) > 1 else blocks[0], said)


def _is_one_object(text: str) -> bool:
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return not text[end:].strip()


def _of_splits(value: dict[str, object]) -> pd.DataFrame:
    """`{"train": [[text, label], …], "test": […]}`, `{"data": [{…}, …]}`, or a single object: rows with their split.

    A pair is a text and its label.
    """
    import pandas as pd

    lists = {name: each for name, each in value.items() if isinstance(each, list)}
    rows: list[dict[str, object]] = []
    for name, items in lists.items():
        own: dict[str, object] = {} if len(lists) == 1 else {SPLIT: name}
        for item in items:
            if isinstance(item, dict):
                rows.append(own | item)
            elif isinstance(item, list) and len(item) == 2:
                rows.append({**own, "text": item[0], "label": item[1]})
    if not rows or len(rows) != sum(map(len, lists.values())):
        rows = [value]  # one line of JSON lines
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})
