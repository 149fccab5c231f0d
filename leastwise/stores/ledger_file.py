"""The ledger of one machine: a SQLite file that its processes share, in whatever container.

Each process keeps a sign of life beside it (`leastwise.stores.lease`); not for a network file system.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import astuple
from pathlib import Path

from leastwise.stores.caps import BudgetExceeded, Caps, Purpose
from leastwise.stores.lease import FOLDER, is_owner_alive, sign
from leastwise.stores.ledger import NANO, Ended, Ledger, cap_nano, climb_scope, current_month, month_scope, worsts_nano
from leastwise.stores.sqlite_file import open_wal, transaction
from leastwise.use_case.price import Usage

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


class LedgerFile(Ledger):
    """A ledger in a file. Opening it settles the reservations of dead processes at their worst case."""

    def __init__(self, path: Path) -> None:
        self._connection = open_ledger(path)
        self._signs = path.parent / FOLDER
        self._owner = sign(self._signs).owner
        self._settle_orphans()

    def promise_all(
        self, caps: Caps, use_case: str, stage: str, usd_worsts: Sequence[float], purpose: Purpose = "evaluation"
    ) -> Future[list[int]]:
        """They are reserved, or refused, at once."""
        promised = Future[list[int]]()
        try:
            promised.set_result(self.reserve_all(caps, use_case, stage, usd_worsts, purpose))
        except BudgetExceeded as refused:
            promised.set_exception(refused)
        return promised

    def reserve_all(
        self, caps: Caps, use_case: str, stage: str, usd_worsts: Sequence[float], purpose: Purpose = "evaluation"
    ) -> list[int]:
        """As `Ledger.reserve_all`, in one transaction."""
        worsts, month = worsts_nano(usd_worsts), current_month()
        scopes = climb_scope(caps.climb_id), month_scope(use_case, month)
        with transaction(self._connection):
            self._check(scopes[0], "budget_usd", caps.usd, worsts)
            self._check(scopes[1], "budget_usd_per_month", caps.usd_per_month, worsts)
            ids = [
                self._connection.execute(
                    "INSERT INTO calls (climb_id, use_case, stage, month, state, worst_nano_usd, owner, purpose, "
                    "reserved_unix_s) VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?)",
                    (caps.climb_id, use_case, stage, month, worst, self._owner, purpose, time.time()),
                ).lastrowid
                for worst in worsts
            ]
            self._move(scopes, spent=0, reserved=sum(worsts))
        return [int(each or 0) for each in ids]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _rows(self, query: str, *values: str | float) -> list[tuple[object, ...]]:
        return self._connection.execute(query, values).fetchall()

    def _check(self, scope: str, limit: str, cap_usd: float | None, worsts: Sequence[int]) -> None:
        if cap_usd is None:
            return
        spent, reserved = self._total(scope)
        for worst in worsts:
            if spent + reserved + worst > cap_nano(cap_usd):
                raise BudgetExceeded(limit, cap_usd, spent / NANO, reserved / NANO, worst / NANO)
            reserved += worst

    def _move(self, scopes: tuple[str, str], *, spent: int, reserved: int) -> None:
        for scope in scopes:
            self._connection.execute(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (scope) DO UPDATE SET spent_nano_usd = "
                "spent_nano_usd + excluded.spent_nano_usd, "
                "reserved_nano_usd = reserved_nano_usd + excluded.reserved_nano_usd",
                (scope, spent, reserved),
            )

    def _close(self, reservation_id: int, state: Ended, actual_nano: int | None, usage: Usage) -> None:
        with transaction(self._connection):
            self._close_in_transaction(reservation_id, state, actual_nano, usage)

    def _close_in_transaction(self, reservation_id: int, state: Ended, actual: int | None, usage: Usage) -> None:
        query = (
            "SELECT climb_id, use_case, month, worst_nano_usd, state FROM calls WHERE id = ? AND "
            "(state = 'open' OR is_orphan)"
        )
        row = self._connection.execute(query, (reservation_id,)).fetchone()
        if row is None:
            raise ValueError(f"reservation {reservation_id} is not open: each is settled or released exactly once")
        climb_id, use_case, month, worst, was = row
        spent = worst if actual is None else actual
        self._connection.execute(
            "UPDATE calls SET state = ?, actual_nano_usd = ?, input_tokens = ?, cached_tokens = ?, "
            "cache_write_tokens = ?, output_tokens = ?, is_orphan = 0 WHERE id = ?",
            (state, spent, *astuple(usage), reservation_id),
        )
        scopes = climb_scope(climb_id), month_scope(use_case, month)
        if was == "open":
            self._move(scopes, spent=spent, reserved=-worst)
        else:  # given up for dead, and counted at its worst case, by another process: what it really cost is known now
            self._move(scopes, spent=spent - worst, reserved=0)

    def _settle_orphans(self) -> None:
        with transaction(self._connection):
            owners = [
                row[0] for row in self._connection.execute("SELECT DISTINCT owner FROM calls WHERE state = 'open'")
            ]
            for owner in owners:
                if owner != self._owner and not is_owner_alive(self._signs, owner):
                    self._settle_all_of(owner)

    def _settle_all_of(self, owner: str) -> None:
        query = "SELECT id FROM calls WHERE state = 'open' AND owner = ?"
        for (row_id,) in self._connection.execute(query, (owner,)).fetchall():
            self._close_in_transaction(row_id, "unknown", None, Usage())
            self._connection.execute("UPDATE calls SET is_orphan = 1 WHERE id = ?", (row_id,))
