"""A month's bill as a function of traffic, for candidates side by side: where one becomes cheaper than another.

Exact between the steps that whole machines make. It knows no queueing: a machine's throughput must be measured at the
latency bound; and no use case: options are put together by who knows prices and measurements.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Literal

from pydantic import Field

from leastwise.money.economics import DAYS_PER_MONTH, MonthlyCost
from leastwise.part import Part
from leastwise.use_case.price import Price, Usage

SECONDS_PER_MONTH = DAYS_PER_MONTH * 86_400
MOST_PIECES = 2_000  # machines of one option whose steps are looked at


class Machines(Part):
    """Own machines, billed whole for the peak hour."""

    usd_per_month: float = Field(ge=0, description="One machine, dollars a month.")
    requests_per_s: float = Field(gt=0, description="What one machine answers within the latency bound, measured.")
    spares: int = Field(0, ge=0)


class Option(Part):
    """How one candidate is billed in its venue."""

    name: str
    price: Price | None = Field(None, description="Dollars per million tokens; None where machines are paid instead.")
    usage: Usage = Field(Usage(), description="Tokens of one request on average, at its cache hits.")
    retry_share: float = Field(0.0, ge=0, le=1)
    machines: Machines | None = None
    minimum_usd_per_month: float = Field(0.0, ge=0, description="Least a host bills.")
    fixed_usd_per_month: float = Field(0.0, ge=0, description="Storage, operations, people.")
    recurring_usd_per_month: float = Field(0.0, ge=0, description="Retraining and labels.")
    price_decline_per_year: float = Field(0.0, ge=0, lt=1, description="Share by which token prices fall in a year.")

    def month(self, requests: float, peak_ratio: float = 1.0, months_ahead: float = 0.0) -> MonthlyCost:
        """The bill of one month.

        `requests` in it; `peak_ratio` is the busiest hour's rate over the mean rate; prices are those of
        `months_ahead`.
        """
        variable = 0.0
        if self.price is not None:
            later = (1 - self.price_decline_per_year) ** (months_ahead / 12)
            variable = requests * self.price.usd(self.usage) * (1 + self.retry_share) * later
        fixed = self.fixed_usd_per_month
        if self.machines:
            fixed += self._count(self.machines, requests, peak_ratio) * self.machines.usd_per_month
        short = max(0.0, self.minimum_usd_per_month - variable)
        return MonthlyCost(variable_usd=variable, fixed_usd=fixed + short, recurring_usd=self.recurring_usd_per_month)

    def _count(self, machines: Machines, requests: float, peak_ratio: float) -> int:
        step = self.step(peak_ratio)
        return max(1, ceil(requests / step * (1 - 1e-12))) + machines.spares

    def step(self, peak_ratio: float) -> float:
        """Requests a month after which one more machine is needed; infinite without machines."""
        if self.machines is None:
            return float("inf")
        return self.machines.requests_per_s * SECONDS_PER_MONTH / peak_ratio


class Crossing(Part):
    """Traffic at which `cheaper` begins to cost less than the other."""

    requests_per_month: float
    cheaper: str


def crossings(one: Option, other: Option, most_requests: float, peak_ratio: float = 1.0) -> tuple[Crossing, ...]:
    """Every traffic up to `most_requests` a month at which the cheaper of the two changes, in order.

    Between two steps both bills are straight lines but for a host's minimum, whose end is a step of its own; so the
    sign of the difference at both ends of each piece says whether and where they cross. At a machine's step the bill
    jumps.
    """
    changes: list[Crossing] = []
    cheaper = _cheaper(one, other, 0.0, peak_ratio)
    for low, high in _pieces((one, other), most_requests, peak_ratio):
        above = low * (1 + 1e-9) + 1e-9  # a step is taken just above its edge
        start = _difference(one, other, above, peak_ratio)
        end = _difference(one, other, high, peak_ratio)
        for at, value in ((low, start), (_root(above, start, high, end), end)):
            now = one.name if value < 0 else other.name if value > 0 else cheaper
            if now != cheaper:
                changes.append(Crossing(requests_per_month=at, cheaper=now))
                cheaper = now
    return tuple(changes)


def _root(low: float, start: float, high: float, end: float) -> float:
    return low if start == end else low + (high - low) * start / (start - end)


def _difference(one: Option, other: Option, requests: float, peak_ratio: float) -> float:
    return one.month(requests, peak_ratio).total_usd - other.month(requests, peak_ratio).total_usd


def _cheaper(one: Option, other: Option, requests: float, peak_ratio: float) -> str:
    return one.name if _difference(one, other, requests, peak_ratio) <= 0 else other.name


def _pieces(options: Sequence[Option], most: float, peak_ratio: float) -> Iterator[tuple[float, float]]:
    edges = {0.0, most}
    for option in options:
        step = option.step(peak_ratio)
        edges |= {step * n for n in range(1, min(int(most / step), MOST_PIECES) + 1)}
        a_request = option.month(1.0, peak_ratio).variable_usd
        if option.minimum_usd_per_month and a_request:
            edges.add(min(option.minimum_usd_per_month / a_request, most))
    ordered = sorted(edges)
    yield from itertools.pairwise(ordered)


def cheapest(options: Sequence[Option], requests: float, peak_ratio: float = 1.0) -> Option:
    """The option with the least bill at that traffic; the first of equals."""
    return min(options, key=lambda option: option.month(requests, peak_ratio).total_usd)


Assumption = Literal[
    "as assumed", "token prices halved", "token prices doubled", "throughput halved", "throughput doubled"
]


class Sensitivity(Part):
    """The first traffic at which owning is cheaper, with one assumption changed.

    `requests_per_month` is None where it is not cheaper up to the traffic that was looked at.
    """

    changed: Assumption
    requests_per_month: float | None


def sensitivity(
    rented: Option, owned: Option, most_requests: float, peak_ratio: float = 1.0
) -> tuple[Sensitivity, ...]:
    """How the first crossing to `owned` moves with token prices and with what a machine answers (its utilisation).

    Raises ValueError where `owned` has no machines or `rented` no price.
    """
    machines, price = owned.machines, rented.price
    if machines is None or price is None:
        raise ValueError(f"{rented.name} against {owned.name}: the first must have a price, the second machines")

    def priced(times: float) -> Option:
        return rented.model_copy(update={"price": _scaled(price, times)})

    def answering(times: float) -> Option:
        busy = machines.model_copy(update={"requests_per_s": machines.requests_per_s * times})
        return owned.model_copy(update={"machines": busy})

    def first(changed: Assumption, rent: Option, own: Option) -> Sensitivity:
        to_owned = (each for each in crossings(rent, own, most_requests, peak_ratio) if each.cheaper == own.name)
        at = next((each.requests_per_month for each in to_owned), None)
        return Sensitivity(changed=changed, requests_per_month=at)

    return (
        first("as assumed", rented, owned),
        first("token prices halved", priced(0.5), owned),
        first("throughput halved", rented, answering(0.5)),
        first("token prices doubled", priced(2.0), owned),
        first("throughput doubled", rented, answering(2.0)),
    )


def _scaled(price: Price, times: float) -> Price:
    return price.model_copy(
        update={
            "input": price.input * times,
            "cached": None if price.cached is None else price.cached * times,
            "cache_write": None if price.cache_write is None else price.cache_write * times,
            "output": price.output * times,
        }
    )
