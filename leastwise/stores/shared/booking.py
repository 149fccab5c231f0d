"""The money of a block moved in one transaction: calls that ended, then new reservations, held against the caps.

It commits nothing. Rows are locked in one order wherever money moves (the process, calls by number, totals by name), so
that two processes wait for each other and never in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import cast

from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import NANO, cap_nano, climb_scope, month_scope
from leastwise.stores.shared.block import Closing, Reserving
from leastwise.stores.shared.connection import Database

OPEN = """
SELECT id, climb_id, use_case, month, worst_nano_usd, state FROM calls
WHERE id = ANY(%s) AND (state = 'open' OR is_orphan) ORDER BY id FOR UPDATE
"""
END = """
UPDATE calls SET state = ended.state, actual_nano_usd = ended.actual, input_tokens = ended.input,
    cached_tokens = ended.cached, cache_write_tokens = ended.written, output_tokens = ended.output, is_orphan = false
FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS ended (id, state, actual, input, cached, written, output)
WHERE calls.id = ended.id
"""
RESERVE = """
INSERT INTO calls (id, climb_id, use_case, stage, month, state, worst_nano_usd, purpose, reserved_unix_s, owner)
SELECT id, climb_id, use_case, stage, %s, 'open', worst, purpose, %s, %s
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[])
    AS new (id, climb_id, use_case, stage, worst, purpose)
"""
NEW_TOTALS = "INSERT INTO totals (scope) SELECT unnest(%s::text[]) ORDER BY 1 ON CONFLICT DO NOTHING"
TOTALS = "SELECT scope, spent_nano_usd, reserved_nano_usd FROM totals WHERE scope = ANY(%s) ORDER BY scope FOR UPDATE"
MOVE = """
UPDATE totals SET spent_nano_usd = now.spent, reserved_nano_usd = now.reserved
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS now (scope, spent, reserved) WHERE totals.scope = now.scope
"""


@dataclass
class Total:
    """What is spent and what is reserved under a name, billionths of a dollar."""

    spent: int = 0
    reserved: int = 0


@dataclass(frozen=True)
class Moment:
    """Now, by the database's clock, and whose block it is."""

    owner: str
    month: str
    unix_s: float


@dataclass
class Books:
    """The totals of one transaction: what changes of them, then as they stand, locked until it ends."""

    changes: dict[str, Total] = field(default_factory=lambda: defaultdict(Total))

    def ended(self, climb_id: str, use_case: str, month: str, *, spent: int, reserved: int) -> None:
        """A call moves what it cost."""
        for scope in (climb_scope(climb_id), month_scope(use_case, month)):
            self.changes[scope].spent += spent
            self.changes[scope].reserved += reserved


def book(
    database: Database,
    now: Moment,
    closing: Sequence[Closing],
    reserving: Sequence[Reserving],
    new_id: Callable[[], int],
) -> None:
    """Move the money of a block. What became of each reservation is told once that is committed."""
    books = Books()
    end(database, books, closing)
    scopes = {scope for each in reserving for scope in _scopes(each, now.month)}
    totals = _changed(database, books, scopes)
    for each in reserving:
        _reserve(each, totals, now.month, new_id)
    _write_reserved(database, now, [each for each in reserving if not each.refused])
    _write_totals(database, totals)


def end(database: Database, books: Books, closing: Sequence[Closing]) -> None:
    """End calls that are open, or that were given up for dead and counted at their worst: what they really cost is
    known now. One that ended before stays as it is, so that telling it twice changes nothing.
    """
    if not closing:
        return
    told = {each.id: each for each in closing}
    rows = []
    for found in database.execute(OPEN, (list(told),)).fetchall():
        call, climb_id, use_case, month, worst, was = cast("tuple[int, str, str, str, int, str]", found)
        how = told[call]
        spent = worst if how.actual_nano is None else how.actual_nano
        rows.append((call, how.state, spent, *astuple(how.usage)))
        is_open = was == "open"
        books.ended(
            climb_id, use_case, month, spent=spent if is_open else spent - worst, reserved=-worst if is_open else 0
        )
    if rows:
        database.execute(END, _columns(rows))


def write_changes(database: Database, books: Books) -> None:
    """Move what changed where nothing new is reserved."""
    _write_totals(database, _changed(database, books, set()))


def _changed(database: Database, books: Books, more: set[str]) -> dict[str, Total]:
    """The totals that change, and some more, locked and with what changed in them; they are not written yet."""
    totals = _locked(database, more | books.changes.keys())
    for scope, change in books.changes.items():
        totals[scope].spent += change.spent
        totals[scope].reserved += change.reserved
    return totals


def _reserve(wanted: Reserving, totals: dict[str, Total], month: str, new_id: Callable[[], int]) -> None:
    wanted.ids, wanted.refused = [], None
    limits = ("budget_usd", wanted.caps.usd), ("budget_usd_per_month", wanted.caps.usd_per_month)
    places = [totals[scope] for scope in _scopes(wanted, month)]
    for total, (limit, cap_usd) in zip(places, limits, strict=True):
        reserved = total.reserved
        for worst in wanted.worsts if cap_usd is not None else ():
            assert cap_usd is not None
            if total.spent + reserved + worst > cap_nano(cap_usd):
                wanted.refused = BudgetExceeded(limit, cap_usd, total.spent / NANO, reserved / NANO, worst / NANO)
                return
            reserved += worst
    for total in places:
        total.reserved += sum(wanted.worsts)
    wanted.ids = [new_id() for _ in wanted.worsts]


def _scopes(wanted: Reserving, month: str) -> tuple[str, str]:
    return climb_scope(wanted.caps.climb_id), month_scope(wanted.use_case, month)


def _locked(database: Database, scopes: Iterable[str]) -> dict[str, Total]:
    """The totals of these names, nobody else's until the transaction ends; new ones begin at nothing."""
    wanted = sorted(scopes)
    if not wanted:
        return {}
    database.execute(NEW_TOTALS, (wanted,))
    rows = database.execute(TOTALS, (wanted,)).fetchall()
    return {str(scope): Total(cast("int", spent), cast("int", reserved)) for scope, spent, reserved in rows}


def _write_reserved(database: Database, now: Moment, reserving: Sequence[Reserving]) -> None:
    rows = [
        (call, each.caps.climb_id, each.use_case, each.stage, worst, each.purpose)
        for each in reserving
        for call, worst in zip(each.ids, each.worsts, strict=True)
    ]
    if rows:
        database.execute(RESERVE, [now.month, now.unix_s, now.owner, *_columns(rows)])


def _write_totals(database: Database, totals: dict[str, Total]) -> None:
    if totals:
        rows = [(scope, total.spent, total.reserved) for scope, total in totals.items()]
        database.execute(MOVE, _columns(rows))


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
