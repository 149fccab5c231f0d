"""SQLite files that several processes of one machine write, and transactions that take the write lock first.

It knows no table; not for a network file system, whose locks SQLite cannot trust.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

from leastwise.errors import BadInput

MOST_CHECKED_BYTES = 1 << 26  # 64 MiB: larger ones are checked by their first pages alone
BUSY_TIMEOUT_S = 30.0
_LOOK_S = 0.01


def open_wal(path: Path, schema: str) -> sqlite3.Connection:
    """Open a SQLite file for several writers; what is committed survives kill -9, not a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_whole(path)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    write_ahead(connection)
    # NORMAL leaves a committed transaction in the operating system's hands: enough against a killed process, and no
    # fsync in the middle of an event loop.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(schema)
    return connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Turns the file's write-ahead log on, waiting for those who do it at the same moment."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:  # the change itself is not waited for by SQLite's own timeout
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
        time.sleep(_LOOK_S)


def check_whole(path: Path) -> None:
    """BadInput, naming the file and the remedy, where it is no SQLite database or a damaged one; once a process."""
    if path.exists() and path.stat().st_size:
        _check_whole(path.resolve())


@lru_cache(maxsize=64)
def _check_whole(path: Path) -> None:
    thorough = (
        "PRAGMA quick_check(1)" if path.stat().st_size <= MOST_CHECKED_BYTES else "SELECT count(*) FROM sqlite_master"
    )
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            said = str(connection.execute(thorough).fetchone()[0])
    except sqlite3.OperationalError:
        return  # locked, or not to be opened: whoever opens it next says so
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok" and not said.isdigit():
        raise BadInput(
            f"{path}: this state file is damaged ({said.splitlines()[0]}). Bring it back from a backup, save what can "
            f"be read with `sqlite3 {path.name} .recover`, or move it and its -wal and -shm files away to start anew"
        )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block or nothing; no other process writes meanwhile."""
    # IMMEDIATE takes the write lock before reading: two processes can never both see the same room under a cap.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
