"""How many requests a second one machine answers within a latency bound, from what it took at rising concurrency.

Arithmetic on measured latencies: it sends nothing (see `leastwise.answering.answerer`) and reads no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_IN_FLIGHT = 64
LEAST_UNDER_LOAD = 20
WORTHWHILE = 1.05  # a doubled load that answers less than this much more is more queue than speed
MOST_LOST_SHARE = 0.05


@dataclass(frozen=True)
class Load:
    """A closed loop: always so many requests in flight, what each took in milliseconds, None where it was lost."""

    concurrency: int
    latencies_ms: tuple[float | None, ...]

    @property
    def is_lost(self) -> bool:
        """Whether so much was lost that its latencies say nothing."""
        lost = sum(each is None for each in self.latencies_ms)
        return not self.latencies_ms or lost > MOST_LOST_SHARE * len(self.latencies_ms)

    @property
    def p95_ms(self) -> float:
        """The smallest time that 95% did not exceed; what was lost took for ever."""
        times = sorted(math.inf if each is None else each for each in self.latencies_ms)
        return times[math.ceil(0.95 * len(times)) - 1]

    @property
    def requests_per_s(self) -> float:
        """Answers a second, by Little's law from the mean latency; 0 where all was lost."""
        known = [each for each in self.latencies_ms if each is not None]
        answered = len(known) / len(self.latencies_ms)
        return 1000 * self.concurrency * answered * len(known) / sum(known) if known and sum(known) > 0 else 0.0

    def is_within(self, bound_ms: float | None) -> bool:
        """Whether this load is answered, and within the bound."""
        return not self.is_lost and (bound_ms is None or self.p95_ms <= bound_ms)


def cold_requests(concurrency: int, rows: int) -> int:
    """Requests of a loop that are sent first and not counted: connections are new, and nothing is queued yet."""
    return concurrency if rows > concurrency else 0


def requests_at(concurrency: int, rows: int) -> int:
    """Requests of the loop at this concurrency where there are so many rows to send."""
    return min(cold_requests(concurrency, rows) + max(LEAST_UNDER_LOAD, 3 * concurrency), rows)


def most_loops(rows: int) -> list[int]:
    """Requests of each loop where the load may rise to its end."""
    return [requests_at(2**power, rows) for power in range(MOST_IN_FLIGHT.bit_length())]


def next_concurrency(loads: Sequence[Load], bound_ms: float | None) -> int | None:
    """What to measure next: twice the load, while it is within the bound and the last doubling was worth it; else
    None.
    """
    if not loads:
        return 1
    last, before = loads[-1], [each.requests_per_s for each in loads[:-1]]
    if not last.is_within(bound_ms) or 2 * last.concurrency > MOST_IN_FLIGHT:
        return None
    return None if before and last.requests_per_s < WORTHWHILE * max(before) else 2 * last.concurrency


def capacity(loads: Sequence[Load], bound_ms: float | None) -> Load:
    """The load a machine is planned for: of those within the bound the one that answers most a second.

    The first one where none is within it: then the requirement on latency fails anyway.
    """
    within = [each for each in loads if each.is_within(bound_ms)]
    return max(within, key=lambda each: each.requests_per_s, default=loads[0])
