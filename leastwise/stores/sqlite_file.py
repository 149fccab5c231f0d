"""SQLite files that several processes of one machine write, and transactions that take the write lock first.

It knows no table; not for a network file system, whose locks SQLite cannot trust.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_TIMEOUT_S = 30.0


def open_wal(path: Path, schema: str) -> sqlite3.Connection:
    """Open a SQLite file for several writers; what is committed survives kill -9, not a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    # NORMAL leaves a committed transaction in the operating system's hands: enough against a killed process, and no
    # fsync in the middle of an event loop.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(schema)
    return connection


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
