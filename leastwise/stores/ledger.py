"""Meters what calls cost, reserving the worst case before each is sent, so that a budget is a hard cap.

It does not price calls and does not estimate stages: it is told dollars. It holds for every process on one machine that
opens the same file, in whatever container: each keeps a sign of life beside it (`leastwise.stores.lease`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from leastwise.stores.caps import BudgetExceeded, Caps, Purpose
from leastwise.stores.lease import FOLDER, is_owner_alive, sign
from leastwise.stores.ledger_file import open_ledger
from leastwise.stores.sqlite_file import transaction
from leastwise.use_case.price import Usage

NANO = 1_000_000_000
MACHINE = "/machine"  # ends the stage of an entry that paid for a machine's time, not for a call


class Expense(NamedTuple):
    """What was billed for a purpose at a moment (of the reservation), dollars."""

    unix_s: float
    purpose: Purpose
    usd: float


class Ledger:
    """A durable spend meter. Opening it settles the reservations of dead processes at their worst case.

    A call in flight when its process was killed may have been billed, so it is counted as if it had been, and the caps
    stay hard. Dollars are kept as whole billionths.
    """

    def __init__(self, path: Path) -> None:
        self._connection = open_ledger(path)
        self._signs = path.parent / FOLDER
        self._owner = sign(self._signs).owner
        self._settle_orphans()

    def reserve(self, caps: Caps, use_case: str, stage: str, usd_worst: float, purpose: Purpose = "evaluation") -> int:
        """Reserve a call's worst case and return its id; raises BudgetExceeded if a cap could break."""
        if not (math.isfinite(usd_worst) and usd_worst >= 0):
            raise ValueError(f"usd_worst is {usd_worst}; a reservation needs a finite price of at least 0")
        worst, month = math.ceil(usd_worst * NANO), current_month()
        with transaction(self._connection):
            self._check(f"climb:{caps.climb_id}", "budget_usd", caps.usd, worst)
            self._check(f"month:{use_case}:{month}", "budget_usd_per_month", caps.usd_per_month, worst)
            cursor = self._connection.execute(
                "INSERT INTO calls (climb_id, use_case, stage, month, state, worst_nano_usd, owner, purpose, "
                "reserved_unix_s) VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?)",
                (caps.climb_id, use_case, stage, month, worst, self._owner, purpose, time.time()),
            )
            self._move((caps.climb_id, use_case, month), spent=0, reserved=worst)
        return int(cursor.lastrowid or 0)

    def settle(self, reservation_id: int, usd_actual: float, usage: Usage | None = None) -> None:
        """Replace a reservation by what the call really cost, more than was reserved too; settling twice is an error.

        What it cost beyond the reservation is spent all the same: the next reservation is held against it.
        """
        if not (math.isfinite(usd_actual) and usd_actual >= 0):
            raise ValueError(f"usd_actual is {usd_actual}; a call costs a finite price of at least 0")
        self._close(reservation_id, "settled", round(usd_actual * NANO), usage or Usage())

    def settle_at_worst(self, reservation_id: int) -> None:
        """Count a call of unknown outcome (cut off, timed out) as if it had cost its worst case."""
        self._close(reservation_id, "unknown", None, Usage())

    def release(self, reservation_id: int) -> None:
        """Give a reservation back: the call was surely not billed."""
        self._close(reservation_id, "released", 0, Usage())

    def spent(self, climb_id: str) -> float:
        """Dollars settled for a climb, over all processes and resumptions."""
        return self._total(f"climb:{climb_id}")[0] / NANO

    def spent_month(self, use_case: str, month: str) -> float:
        """Dollars settled for a use case in a calendar month (`"2026-11"`, UTC, by the time of the reservation)."""
        return self._total(f"month:{use_case}:{month}")[0] / NANO

    def reserved(self, climb_id: str) -> float:
        """Dollars still reserved by calls in flight for a climb."""
        return self._total(f"climb:{climb_id}")[1] / NANO

    def counts(self, climb_id: str) -> dict[str, int]:
        """How many calls of a climb are `open`, `settled`, `unknown` (counted at worst) or `released`."""
        query = (
            "SELECT state, count(*) FROM calls WHERE climb_id = ? AND stage NOT LIKE ? AND purpose != 'data' "
            "GROUP BY state"
        )
        return dict(self._connection.execute(query, (climb_id, f"%{MACHINE}")).fetchall())

    def calls(self, climb_id: str) -> int:
        """How many calls were billed to a climb, or may have been."""
        counts = self.counts(climb_id)
        return counts.get("settled", 0) + counts.get("unknown", 0)

    def spent_by(self, climb_id: str, stage: str) -> float:
        """Dollars settled for one stage of a climb, calls and machines, over all processes and resumptions."""
        query = "SELECT sum(actual_nano_usd) FROM calls WHERE climb_id = ? AND stage IN (?, ?) AND state != 'open'"
        return (self._connection.execute(query, (climb_id, stage, stage + MACHINE)).fetchone()[0] or 0) / NANO

    def spent_for(self, climb_id: str) -> dict[Purpose, float]:
        """Dollars settled for a climb (or any flow's run) by purpose, dearest first."""
        return self._by_purpose("climb_id = ?", climb_id)

    def spent_for_stage(self, climb_id: str, stage: str) -> dict[Purpose, float]:
        """Dollars settled for one stage of a climb by purpose, dearest first."""
        return self._by_purpose("climb_id = ? AND stage IN (?, ?)", climb_id, stage, stage + MACHINE)

    def _by_purpose(self, where: str, *values: str) -> dict[Purpose, float]:
        query = (
            "SELECT purpose, sum(actual_nano_usd) AS nano FROM calls "  # noqa: S608 (our own words)
            f"WHERE {where} AND state != 'open' GROUP BY purpose HAVING nano > 0 ORDER BY nano DESC"
        )
        return {purpose: nano / NANO for purpose, nano in self._connection.execute(query, values)}

    def over_time(self, use_case: str, since_unix_s: float) -> list[Expense]:
        """What a use case was billed since a moment, oldest first.

        Entries of one purpose within a minute are one line, so that a climb of many calls stays short.
        """
        query = (
            "SELECT min(reserved_unix_s), purpose, sum(actual_nano_usd) FROM calls WHERE use_case = ? "
            "AND state != 'open' AND reserved_unix_s >= ? "
            "GROUP BY CAST(reserved_unix_s / 60 AS INTEGER), purpose ORDER BY 1"
        )
        return [
            Expense(at, purpose, nano / NANO)
            for at, purpose, nano in self._connection.execute(query, (use_case, since_unix_s))
        ]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _total(self, scope: str) -> tuple[int, int]:
        query = "SELECT spent_nano_usd, reserved_nano_usd FROM totals WHERE scope = ?"
        row: tuple[int, int] | None = self._connection.execute(query, (scope,)).fetchone()
        return row or (0, 0)

    def _check(self, scope: str, limit: str, cap_usd: float | None, worst: int) -> None:
        if cap_usd is None:
            return
        spent, reserved = self._total(scope)
        if spent + reserved + worst > math.floor(cap_usd * NANO + 1e-6):
            raise BudgetExceeded(limit, cap_usd, spent / NANO, reserved / NANO, worst / NANO)

    def _move(self, owner: tuple[str, str, str], *, spent: int, reserved: int) -> None:
        climb_id, use_case, month = owner
        for scope in (f"climb:{climb_id}", f"month:{use_case}:{month}"):
            self._connection.execute(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (scope) DO UPDATE SET spent_nano_usd = "
                "spent_nano_usd + excluded.spent_nano_usd, "
                "reserved_nano_usd = reserved_nano_usd + excluded.reserved_nano_usd",
                (scope, spent, reserved),
            )

    def _close(self, reservation_id: int, state: str, actual: int | None, usage: Usage) -> None:
        with transaction(self._connection):
            self._close_in_transaction(reservation_id, state, actual, usage)

    def _close_in_transaction(self, reservation_id: int, state: str, actual: int | None, usage: Usage) -> None:
        query = (
            "SELECT climb_id, use_case, month, worst_nano_usd, state FROM calls WHERE id = ? AND "
            "(state = 'open' OR is_orphan)"
        )
        row = self._connection.execute(query, (reservation_id,)).fetchone()
        if row is None:
            raise ValueError(f"reservation {reservation_id} is not open: each is settled or released exactly once")
        *owner, worst, was = row
        spent = worst if actual is None else actual
        self._connection.execute(
            "UPDATE calls SET state = ?, actual_nano_usd = ?, input_tokens = ?, cached_tokens = ?, "
            "cache_write_tokens = ?, output_tokens = ?, is_orphan = 0 WHERE id = ?",
            (state, spent, *astuple(usage), reservation_id),
        )
        if was == "open":
            self._move((owner[0], owner[1], owner[2]), spent=spent, reserved=-worst)
        else:  # given up for dead, and counted at its worst case, by another process: what it really cost is known now
            self._move((owner[0], owner[1], owner[2]), spent=spent - worst, reserved=0)

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


@dataclass(frozen=True)
class Meter:
    """A ledger bound to who spends: what whoever asks a model is handed."""

    ledger: Ledger
    caps: Caps
    use_case: str
    stage: str
    purpose: Purpose = "evaluation"

    def reserve(self, usd_worst: float) -> int:
        """As `Ledger.reserve`, for this spender."""
        return self.ledger.reserve(self.caps, self.use_case, self.stage, usd_worst, self.purpose)

    def pay(self, usd: float) -> None:
        """Book what was bought outside (labels by people): raises BudgetExceeded where a cap does not allow it."""
        self.ledger.settle(self.reserve(usd), usd)

    @contextmanager
    def machine(self, usd_per_hour: float, usd_worst: float) -> Iterator[Machine]:
        """Pay a machine's time while the block runs, `usd_worst` reserved before; see `Machine` for time beyond that.

        Raises BudgetExceeded before anything runs. A process that is killed inside leaves the reservation, which is
        settled at its worst case as any other.
        """
        machine = Machine(self, usd_per_hour, usd_worst)
        try:
            yield machine
        finally:
            machine.settle()


class Machine:
    """A machine paid by the hour while it runs. Who uses it calls `keep_paid` between pieces of its work.

    The caps hold up to one piece: what runs past the last reservation until the next `keep_paid` is paid all the same.
    """

    def __init__(self, meter: Meter, usd_per_hour: float, usd_worst: float) -> None:
        self._meter = replace(meter, stage=meter.stage + MACHINE)
        self._usd_per_hour, self._usd_worst = usd_per_hour, usd_worst
        self._reservations, self._reserved_usd = [self._meter.reserve(usd_worst)], usd_worst
        self._started = time.monotonic()

    @property
    def usd(self) -> float:
        """Dollars so far."""
        return (time.monotonic() - self._started) / 3600 * self._usd_per_hour

    def keep_paid(self) -> None:
        """Reserve more where the time reserved is used up; raises BudgetExceeded where a cap does not allow it."""
        if self.usd > self._reserved_usd:
            more = max(self._usd_worst / 4, self.usd - self._reserved_usd)
            self._reservations.append(self._meter.reserve(more))
            self._reserved_usd += more

    def settle(self) -> None:
        """Replace what is reserved by what the time came to."""
        first, *more = self._reservations
        self._meter.ledger.settle(first, self.usd)
        for reservation in more:
            self._meter.ledger.release(reservation)


def current_month() -> str:
    """The calendar month that spending counts to now (UTC), like `2026-11`."""
    return datetime.now(UTC).strftime("%Y-%m")
