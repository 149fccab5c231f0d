"""What a running endpoint carried at growing concurrency, and what that makes of the bill: arithmetic on timings.

It sends nothing (see `leastwise.serving.deployed.load`). A gate prices machines by what the model server carried; an
endpoint also retrieves, guards, logs and counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leastwise.money.capacity import WORTHWHILE, Load
from leastwise.money.economics import machines_needed
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.use_case import UseCase

MOST_OVER_BOUND = 2.0  # times the latency bound; what is slower than that needs no further look
TOLERANCE = 0.1  # share by which an endpoint may carry less than the gate priced before that is said
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Level(Load):
    """A closed loop whose length was timed. `answered`: requests within `seconds`; those still in flight then have a
    latency and are not counted.
    """

    seconds: float = 0.0
    answered: int = 0

    @property
    def errors(self) -> int:
        """Requests that were not answered."""
        return sum(each is None for each in self.latencies_ms)

    @property
    def requests_per_s(self) -> float:
        """Answers a second by the clock, whoever asks included."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    def quantile_ms(self, share: float) -> float:
        """The smallest time that this share did not exceed; what was not answered took for ever."""
        times = sorted(math.inf if each is None else each for each in self.latencies_ms)
        return times[max(0, math.ceil(share * len(times)) - 1)] if times else math.inf


def next_level(levels: Sequence[Level], bound_ms: float | None, most: int) -> int | None:
    """How many requests to have in flight next: twice as many, up to `most`, while the last doubling answered 5% more
    than any load before it, and 95% within twice the bound; else None.
    """
    if not levels:
        return 1 if most >= 1 else None
    last, before = levels[-1], [each.requests_per_s for each in levels[:-1]]
    is_slow = bound_ms is not None and last.p95_ms > MOST_OVER_BOUND * bound_ms
    has_grown = not before or last.requests_per_s >= WORTHWHILE * max(before)
    goes_on = has_grown and not is_slow and not last.is_lost and 2 * last.concurrency <= most
    return 2 * last.concurrency if goes_on else None


@dataclass(frozen=True)
class Carried:
    """Every level, and the bound of the use case; None: any latency will do."""

    levels: tuple[Level, ...]
    bound_ms: float | None = None

    @property
    def most(self) -> Level | None:
        """The level that answered most a second, whatever it took; None where every one lost too much."""
        return max((each for each in self.levels if not each.is_lost), key=_rate, default=None)

    @property
    def within_bound(self) -> Level | None:
        """As `most`, of those whose p95 meets the bound."""
        return max((each for each in self.levels if each.is_within(self.bound_ms)), key=_rate, default=None)

    @property
    def requests_per_s(self) -> float:
        """The most answered a second within the bound; 0 where no level is within it."""
        return self.within_bound.requests_per_s if self.within_bound else 0.0

    def figures(self) -> dict[str, float]:
        """The figures by name."""
        figures = {
            "load.requests_per_s": self.most.requests_per_s if self.most else 0.0,
            "load.requests_per_s_within_bound": self.requests_per_s,
            "load.concurrency": float(self.within_bound.concurrency if self.within_bound else 0),
            "load.errors": float(sum(each.errors for each in self.levels)),
        }
        shown = {f"load.p95_ms_at_{each.concurrency}": each.p95_ms for each in self.levels}
        return figures | {name: ms for name, ms in shown.items() if math.isfinite(ms)}


@dataclass(frozen=True)
class Repriced:
    """The bill by what the endpoint carries beside what the gate priced; `more_usd_per_1k`: dollars for 1,000 requests
    beyond what was gated (below 0: less).
    """

    priced_per_s: float
    carried_per_s: float
    priced_machines: int
    machines: int
    more_usd_per_1k: float

    @property
    def carries_less(self) -> bool:
        """Whether the endpoint carries less than what was priced, by more than the tolerance."""
        return self.carried_per_s < (1 - TOLERANCE) * self.priced_per_s


def repriced(use_case: UseCase, priced_per_s: float, carried_per_s: float) -> Repriced | None:
    """The bill of own machines that carry so many requests a second each; None where either is not known, or the
    endpoint carries nothing within the bound.
    """
    if priced_per_s <= 0 or carried_per_s <= 0:
        return None
    peak, spares = use_case.traffic.peak_requests_per_s, use_case.hosting.spare_machines
    fixed = [1000 * fixed_usd_per_request(use_case, "self_host", each) for each in (priced_per_s, carried_per_s)]
    machines = [machines_needed(peak, each, spares) for each in (priced_per_s, carried_per_s)]
    return Repriced(priced_per_s, carried_per_s, machines[0], machines[1], fixed[1] - fixed[0])


def _rate(level: Level) -> float:
    return level.requests_per_s
