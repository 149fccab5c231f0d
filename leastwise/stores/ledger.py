"""Meters what calls cost, reserving the worst case before each is sent, so that a budget is a hard cap.

It does not price calls and does not estimate stages: it is told dollars. It is kept in a file for every process of one
machine (`leastwise.stores.ledger_file`) or in Postgres for several machines (`leastwise.stores.shared.ledger`).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, NamedTuple, Self, cast

from leastwise.stores.caps import Caps, Purpose
from leastwise.use_case.price import Usage

NANO = 1_000_000_000
MOST_NANO = 1 << 62  # of one call: what a column of 64 bits holds, with room for the sums
MACHINE = "/machine"  # ends the stage of an entry that paid for a machine's time, not for a call

Ended = Literal["settled", "unknown", "released"]  # `unknown`: cut off or timed out, so counted at its worst case


class Expense(NamedTuple):
    """What was billed for a purpose at a moment (of the reservation), dollars."""

    unix_s: float
    purpose: Purpose
    usd: float


class Ledger(ABC):
    """A durable spend meter, whose caps hold over every process that opens it. Dollars are whole billionths in it.

    A call in flight when its process was killed may have been billed, so it is counted as if it had been, and the caps
    stay hard. What a call cost beyond its reservation is spent all the same: the next one is held against it.
    """

    minute = "CAST(reserved_unix_s / 60 AS INTEGER)"  # of an entry, in this ledger's SQL

    @abstractmethod
    def promise_all(
        self, caps: Caps, use_case: str, stage: str, usd_worsts: Sequence[float], purpose: Purpose = "evaluation"
    ) -> Future[list[int]]:
        """Reserve the worst cases of several calls, all or none: their ids once they are durable, or BudgetExceeded if
        a cap could break. For who cannot wait where he stands (an event loop).
        """

    @abstractmethod
    def _close(self, reservation_id: int, state: Ended, actual_nano: int | None, usage: Usage) -> None:
        """End an open reservation; None is its worst case. ValueError where it is not open."""

    @abstractmethod
    def _rows(self, query: str, *values: str | float) -> list[tuple[object, ...]]:
        """What a query says, its values where it has a ?."""

    @abstractmethod
    def close(self) -> None:
        """Whatever was asked is durable, and nothing is kept open."""

    def reserve_all(
        self, caps: Caps, use_case: str, stage: str, usd_worsts: Sequence[float], purpose: Purpose = "evaluation"
    ) -> list[int]:
        """Reserve the worst cases of several calls, all or none; raises BudgetExceeded if a cap could break."""
        return self.promise_all(caps, use_case, stage, usd_worsts, purpose).result()

    def reserve(self, caps: Caps, use_case: str, stage: str, usd_worst: float, purpose: Purpose = "evaluation") -> int:
        """Reserve a call's worst case and return its id; raises BudgetExceeded if a cap could break."""
        return self.reserve_all(caps, use_case, stage, [usd_worst], purpose)[0]

    def settle(self, reservation_id: int, usd_actual: float, usage: Usage | None = None) -> None:
        """Replace a reservation by what the call really cost, more than was reserved too. Twice is an error."""
        nano = nano_usd("usd_actual", usd_actual, "a call costs a finite price of at least 0")
        self._close(reservation_id, "settled", round(nano), usage or Usage())

    def settle_at_worst(self, reservation_id: int) -> None:
        """Count a call of unknown outcome (cut off, timed out) as if it had cost its worst case."""
        self._close(reservation_id, "unknown", None, Usage())

    def release(self, reservation_id: int) -> None:
        """Give a reservation back: the call was surely not billed."""
        self._close(reservation_id, "released", 0, Usage())

    def spent(self, climb_id: str) -> float:
        """Dollars settled for a climb, over all processes and resumptions."""
        return self._total(climb_scope(climb_id))[0] / NANO

    def spent_month(self, use_case: str, month: str) -> float:
        """Dollars settled for a use case in a calendar month (`"2026-11"`, UTC, by the time of the reservation)."""
        return self._total(month_scope(use_case, month))[0] / NANO

    def reserved(self, climb_id: str) -> float:
        """Dollars still reserved by calls in flight for a climb."""
        return self._total(climb_scope(climb_id))[1] / NANO

    def counts(self, climb_id: str) -> dict[str, int]:
        """How many calls of a climb are `open`, `settled`, `unknown` (counted at worst) or `released`."""
        query = (
            "SELECT state, count(*) FROM calls WHERE climb_id = ? AND stage NOT LIKE ? AND purpose != 'data' "
            "GROUP BY state"
        )
        return {str(state): int(cast("int", count)) for state, count in self._rows(query, climb_id, f"%{MACHINE}")}

    def calls(self, climb_id: str) -> int:
        """How many calls were billed to a climb, or may have been."""
        counts = self.counts(climb_id)
        return counts.get("settled", 0) + counts.get("unknown", 0)

    def spent_by(self, climb_id: str, stage: str) -> float:
        """Dollars settled for one stage of a climb, calls and machines, over all processes and resumptions."""
        query = (
            "SELECT coalesce(sum(actual_nano_usd), 0) FROM calls WHERE climb_id = ? AND stage IN (?, ?) "
            "AND state != 'open'"
        )
        ((nano,),) = self._rows(query, climb_id, stage, stage + MACHINE)
        return int(cast("int", nano)) / NANO

    def spent_for(self, climb_id: str) -> dict[Purpose, float]:
        """Dollars settled for a climb (or any flow's run) by purpose, dearest first."""
        return self._by_purpose("climb_id = ?", climb_id)

    def spent_for_stage(self, climb_id: str, stage: str) -> dict[Purpose, float]:
        """Dollars settled for one stage of a climb by purpose, dearest first."""
        return self._by_purpose("climb_id = ? AND stage IN (?, ?)", climb_id, stage, stage + MACHINE)

    def _by_purpose(self, where: str, *values: str) -> dict[Purpose, float]:
        query = (
            "SELECT purpose, sum(actual_nano_usd) FROM calls "  # noqa: S608 (our own words)
            f"WHERE {where} AND state != 'open' GROUP BY purpose HAVING sum(actual_nano_usd) > 0 ORDER BY 2 DESC"
        )
        return {cast("Purpose", purpose): int(cast("int", nano)) / NANO for purpose, nano in self._rows(query, *values)}

    def over_time(self, use_case: str, since_unix_s: float) -> list[Expense]:
        """What a use case was billed since a moment, oldest first.

        Entries of one purpose within a minute are one line, so that a climb of many calls stays short.
        """
        query = (
            "SELECT min(reserved_unix_s), purpose, sum(actual_nano_usd) FROM calls "  # noqa: S608 (our own words)
            "WHERE use_case = ? AND state != 'open' AND reserved_unix_s >= ? "
            f"GROUP BY {self.minute}, purpose ORDER BY 1"
        )
        return [
            Expense(float(cast("float", at)), cast("Purpose", purpose), int(cast("int", nano)) / NANO)
            for at, purpose, nano in self._rows(query, use_case, since_unix_s)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _total(self, scope: str) -> tuple[int, int]:
        rows = self._rows("SELECT spent_nano_usd, reserved_nano_usd FROM totals WHERE scope = ?", scope)
        return cast("tuple[int, int]", rows[0]) if rows else (0, 0)


def nano_usd(name: str, usd: float, rule: str) -> float:
    """Dollars as billionths, not rounded; ValueError, saying the rule, where it is no price."""
    if not (math.isfinite(usd) and 0 <= usd * NANO < MOST_NANO):
        raise ValueError(f"{name} is {usd}; {rule}")
    return usd * NANO


def worsts_nano(usd_worsts: Sequence[float]) -> list[int]:
    """What is reserved for each, rounded up."""
    rule = "a reservation needs a finite price of at least 0"
    return [math.ceil(nano_usd("usd_worst", usd, rule)) for usd in usd_worsts]


def cap_nano(cap_usd: float) -> int:
    """A cap in billionths: what adds up to it exactly is allowed."""
    return math.floor(cap_usd * NANO + 1e-6)


def climb_scope(climb_id: str) -> str:
    """What a climb's spending is summed under."""
    return f"climb:{climb_id}"


def month_scope(use_case: str, month: str) -> str:
    """What a use case's spending of a month is summed under."""
    return f"month:{use_case}:{month}"


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

    def promise_all(self, usd_worsts: Sequence[float]) -> Future[list[int]]:
        """As `Ledger.promise_all`, for this spender."""
        return self.ledger.promise_all(self.caps, self.use_case, self.stage, usd_worsts, self.purpose)

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
