"""Rows kept as they come, off the path of whoever brings them: first in a journal, then in Parquet parts by day.

Each process writes a journal of its own, which it keeps locked; what a killed process left is taken up by the next one.
A row is on its way to disk within FLUSH_S. It knows no column but `time` (unix seconds, which says the day), and it
reads no part again (`table_files.py` does, a folder as one table).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import posixpath
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Literal

from leastwise.redaction import without_secrets
from leastwise.stores import storage

Row = dict[str, object]
Columns = Mapping[str, Literal["string", "float64", "int64"]]

log = logging.getLogger(__name__)

FLUSH_S = 0.25
SYNC_S = 1.0  # how often what was written is forced to the disk itself: what a power cut may take
MOST_WAITING_ROWS = 100_000
MOST_PART_ROWS = 20_000
CLOSE_S = 30.0
SUFFIX = ".jsonl"
MOST_NUMBER: Mapping[str, float] = {"float64": math.inf, "int64": 2**63 - 1024}  # the last float below 2^63


class Journal:
    """Rows of one process on their way to `target`, a folder or `s3://` prefix of parts by day (`date=2026-11-26/`).

    `folder` holds the journals, on this machine. `prepared` makes a row what may be kept (masks it, say), in the
    journal's own thread. Of rows that cannot be written for long, as on a full disk, `dropped` are lost.
    """

    def __init__(
        self, folder: Path, target: str, columns: Columns, part_every_s: float, prepared: Callable[[Row], Row]
    ) -> None:
        self.folder, self.target, self.columns = folder, target, columns
        self.part_every_s, self.prepared = part_every_s, prepared
        self.rows = self.dropped = 0
        self._waiting: deque[Row] = deque()
        self._unwritten = b""
        self._synced = self._begun = time.monotonic()
        self._rows_of_part, self._is_troubled = 0, False
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _new(folder)
        self._ending, self._is_due, self._is_written = threading.Event(), threading.Event(), False
        self._is_due.set()  # what another process left
        # Two threads: a place that answers slowly must not keep rows from the disk here.
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._keep, self._publish_all)]
        for each in self._threads:
            each.start()

    def add(self, row: Row) -> None:
        """Take a row; it waits for nothing."""
        if len(self._waiting) >= MOST_WAITING_ROWS:
            self.dropped += 1
            return
        self._waiting.append(row)

    def close(self) -> None:
        """Write what is waiting and make a part of it; what cannot be made one now is taken up by the next process."""
        self._ending.set()
        for each in self._threads:
            each.join(CLOSE_S)

    def _keep(self) -> None:
        while not self._ending.wait(FLUSH_S):
            self._turn()
        self._turn(at_end=True)
        self.dropped += self._unwritten.count(b"\n") + len(self._waiting)  # the disk is full to the last
        self._is_written = True
        self._is_due.set()

    def _turn(self, at_end: bool = False) -> None:
        try:
            self._write()
            is_due = self._rows_of_part >= MOST_PART_ROWS or time.monotonic() - self._begun > self.part_every_s
            if at_end or is_due:
                self._next_part(at_end)
            self._is_troubled = False
        except Exception as error:  # a full disk, say: the rows wait, and are tried again
            if not self._is_troubled:  # said once, not every turn
                log.warning(f"the journal {self._file.path} could not be written: {without_secrets(str(error))}")
            self._is_troubled = True

    def _write(self) -> None:
        if (
            not self._unwritten
        ):  # else the disk is full: rows wait where they are counted, and what is beyond is dropped
            lines = []
            while self._waiting:
                lines.append(self._line(self._waiting.popleft()))
            self._unwritten = b"".join(lines)
        if self._unwritten:
            count = self._unwritten.count(b"\n")
            _write_whole(self._file.handle, self._unwritten)
            self._unwritten, self._rows_of_part = b"", self._rows_of_part + count
            self.rows += count
        if time.monotonic() - self._synced > SYNC_S:
            os.fdatasync(self._file.handle)
            self._synced = time.monotonic()

    def _line(self, row: Row) -> bytes:
        try:
            return json.dumps(self.prepared(row)).encode() + b"\n"
        except Exception as error:  # one row that cannot be kept must not stand in the way of the others
            log.warning(f"a row could not be kept: {type(error).__name__}")
            self.dropped += 1
            return b""

    def _next_part(self, at_end: bool) -> None:
        """End this journal, in whose place comes a new one, and let parts be made of all that nobody writes any
        longer.
        """
        self._begun = time.monotonic()
        if self._rows_of_part or at_end:
            ended = self._file
            self._file = ended if at_end else _new(self.folder)
            self._rows_of_part = 0
            with contextlib.closing(os.fdopen(ended.handle, "ab")):  # closed, and so let go, whatever the disk says
                os.fsync(ended.handle)
        self._is_due.set()

    def _publish_all(self) -> None:
        is_last = False
        while not is_last:
            self._is_due.wait()
            self._is_due.clear()
            is_last = self._is_written
            for file in sorted(self.folder.glob(f"[!.]*{SUFFIX}")):
                self._publish(file)

    def _publish(self, file: Path) -> None:
        """Make parts of a journal that nobody holds, then remove it: killed between, the next makes the same parts."""
        try:
            with _held(file) as is_ours:
                if is_ours:
                    for day, rows in _by_day(file).items():
                        uri = posixpath.join(self.target, f"date={day}", f"{file.stem}.parquet")
                        storage.write_bytes(uri, _parquet(rows, self.columns))
                    file.unlink(missing_ok=True)
        except Exception as error:  # S3 away, say: the journal stays, and the next turn tries again
            where = without_secrets(self.target)
            log.warning(
                f"rows of {file} are not in {where} yet ({type(error).__name__}); they are kept and tried again"
            )


class _File:
    """A journal that this process writes, under a lock for as long as it is open."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self.handle = path, handle


def _new(folder: Path) -> _File:
    """A journal that is locked before anybody can find it; names are in the order of time."""
    name = f"{time.time_ns() // 1_000_000:013d}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    hidden, path = folder / f".{name}", folder / name
    handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: one process only
        fcntl.flock(handle, fcntl.LOCK_EX)
    hidden.rename(path)
    return _File(path, handle)


@contextlib.contextmanager
def _held(file: Path) -> Iterator[bool]:
    """Whether nobody else writes this journal or makes parts of it; nobody will while the block lasts."""
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield file.exists()
    finally:
        os.close(handle)


def _write_whole(handle: int, data: bytes) -> None:
    """All of it, or what was written of it is taken back: the rest is then written again, whole."""
    begun, view = os.fstat(handle).st_size, memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.ftruncate(handle, begun)
        raise


def _by_day(file: Path) -> dict[str, list[Row]]:
    """The whole rows of a journal by their day (UTC); a kill can have cut the last line short."""
    days: dict[str, list[Row]] = defaultdict(list)
    for line in file.read_bytes().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, OSError):  # a day that is none too
            row = json.loads(line)
            days[datetime.fromtimestamp(float(row["time"]), UTC).date().isoformat()].append(row)
    return days


def _parquet(rows: list[Row], columns: Columns) -> bytes:
    """The rows with these columns and types, the same in every part whichever values are missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    held = [
        {name: _storable(row.get(name), kind) for name, kind in columns.items()}
        for row in sorted(rows, key=lambda row: float(str(row["time"])))
    ]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(held, schema=schema), buffer)
    return buffer.getvalue()


def _storable(value: object, kind: str) -> object:
    """A value of a column, nothing where it is none of this kind: one that cannot be stored must not keep the others
    from it. A half character, which no encoding has, is a question mark.
    """
    if kind == "string":
        return None if value is None else str(value).encode(errors="replace").decode()
    if not isinstance(value, int | float) or abs(value) > MOST_NUMBER[kind]:
        return None
    return float(value) if kind == "float64" else None if value != value else int(value)
