"""The ledger's file: its tables, and one of an earlier version brought up to date. It reads and moves no money."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from leastwise.stores.sqlite_file import open_wal, transaction

TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, climb_id TEXT NOT NULL, use_case TEXT NOT NULL, stage TEXT NOT NULL, month TEXT NOT NULL,
    state TEXT NOT NULL, worst_nano_usd INTEGER NOT NULL, actual_nano_usd INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    purpose TEXT NOT NULL DEFAULT 'evaluation', reserved_unix_s REAL NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '', is_orphan INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS totals (
    scope TEXT PRIMARY KEY, spent_nano_usd INTEGER NOT NULL DEFAULT 0, reserved_nano_usd INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
ADDED = {
    "purpose": "TEXT NOT NULL DEFAULT 'evaluation'",
    "reserved_unix_s": "REAL NOT NULL DEFAULT 0",
    "owner": "TEXT NOT NULL DEFAULT ''",
    "is_orphan": "INTEGER NOT NULL DEFAULT 0",
}
DROPPED = ("pid", "pid_started")  # process ids said nothing in containers that share the file
OPEN_CALLS = "CREATE INDEX IF NOT EXISTS open_calls_of ON calls (owner) WHERE state = 'open'"


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open it; one of an earlier version keeps what it says: its entries count as evaluation, at no known time, and
    what was open in it belongs to nobody who lives.
    """
    connection = open_wal(path, TABLES)
    with transaction(connection):
        columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
        if columns & set(DROPPED):
            connection.execute("DROP INDEX IF EXISTS open_calls")
        for column in set(DROPPED) & columns:
            connection.execute(f"ALTER TABLE calls DROP COLUMN {column}")
        for column in ADDED.keys() - columns:
            connection.execute(f"ALTER TABLE calls ADD COLUMN {column} {ADDED[column]}")
        connection.execute(OPEN_CALLS)
    return connection
