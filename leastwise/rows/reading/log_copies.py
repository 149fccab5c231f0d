"""Copies of an endpoint's log that stand still while something rests on them: the log goes on growing.

A climb asks one question from its beginning to its end, and a part that is written meanwhile would make it another one.
Of traffic the stretch that is replayed is copied, of other tables all requests; the log itself is only read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.rows.reading import raw_tables, request_log
from leastwise.stores.tables import drawn_rows, table_files, table_times
from leastwise.use_case import UseCase

FOLDER = "requests"
EVERYTHING = 1 << 62


def with_copies(use_case: UseCase, names: tuple[str, ...], home: Path) -> UseCase:
    """The use case with copies of what the logs among these tables hold by now; itself where none is a log."""
    copied = {name: _copied(use_case, name, uri, home) for name, uri in _logs(use_case, names)}
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=copied)}) if copied else use_case


def with_copies_of(before: UseCase, use_case: UseCase, names: tuple[str, ...], home: Path) -> UseCase | None:
    """The use case with the copies that an earlier reading of it has; None where it has others, or lacks one."""
    copied: dict[str, str] = {}
    for name, uri in _logs(use_case, names):
        path = str(getattr(before.data, name))
        if not path.startswith(str(_place(use_case, name, uri, home))) or not Path(path).exists():
            return None
        copied[name] = path
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=copied)})


def has_logs(use_case: UseCase, names: tuple[str, ...]) -> bool:
    """Whether one of these tables is a log that may grow."""
    return next(_logs(use_case, names), None) is not None


def _logs(use_case: UseCase, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The tables that are a folder or prefix of a log's parts, each with its URI."""
    for name in names:
        uri = getattr(use_case.data, name)
        if uri and _is_log(uri):
            yield name, uri


def _is_log(uri: str) -> bool:
    """Whether it is a folder with a log; what cannot be read is said where the table is read, with all else."""
    try:
        return not table_files.is_file(uri) and request_log.is_log(next(table_files.read_blocks(uri)).columns)
    except (BadInput, OSError, ValueError):
        return False


def _place(use_case: UseCase, name: str, uri: str, home: Path) -> Path:
    """Where the copies of one log lie, without what their content adds to the name; what is copied of it is in it."""
    how = str((_most(use_case, name), _room(use_case, name), use_case.data.time_column))
    return home / FOLDER / f"{use_case.name}-{name}-{content_key(uri, how)[:8]}"


def _most(use_case: UseCase, name: str) -> int:
    return use_case.caching.replay_requests if name == "traffic" else EVERYTHING


def _room(use_case: UseCase, name: str) -> float:
    return raw_tables.room_in_characters(use_case) if name == "traffic" else math.inf


def _copied(use_case: UseCase, name: str, uri: str, home: Path) -> str:
    data, source, parts = use_case.data, f"data.{name} ({uri})", table_files.parts_of(uri)
    room = _room(use_case, name)

    def blocks(drawn: drawn_rows.IsDrawn | None) -> Iterator[drawn_rows.Block]:
        for raw in raw_tables.raw_requests(uri, data, source, parts, room):
            rows = raw if drawn is None else raw[drawn[raw.index]]
            column = (name == "traffic" and data.time_column) or request_log.time_column(rows.columns)
            yield drawn_rows.Block(rows, table_times.times_of(rows, column, source) if column else None)

    content = table_files.sha256(uri, parts)
    path = Path(f"{_place(use_case, name, uri, home)}-{content[:16]}.parquet")
    if not path.exists():
        table_files.write_table(drawn_rows.stretch(blocks, _most(use_case, name), content, source).rows, path)
    return str(path)
