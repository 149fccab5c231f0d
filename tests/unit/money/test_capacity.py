"""A machine is planned for the load that answers most within the latency bound; its load is doubled while that pays."""

import math

import pytest

from leastwise.money.capacity import Load, capacity, next_concurrency


def machine(slots: int, ms: float, bound: float | None) -> list[Load]:
    """A machine that answers `slots` requests at once, each in `ms`; what waits takes longer."""
    loads: list[Load] = []
    while (concurrency := next_concurrency(loads, bound)) is not None:
        loads.append(Load(concurrency, (ms * max(1.0, concurrency / slots),) * 12))
    return loads


@pytest.mark.parametrize(
    ("slots", "ms", "bound", "wanted", "per_s"),
    [
        (1, 5000.0, 6000.0, 1, 0.2),
        (8, 100.0, 150.0, 8, 80.0),
        (8, 100.0, None, 8, 80.0),
        (4, 100.0, 99.0, 1, 10.0),  # never within the bound: its latency fails it anyway
        (500, 100.0, 150.0, 64, 640.0),
    ],
)
def test_the_load_that_answers_most_within_the_bound(slots: int, ms: float, bound: float, wanted: int, per_s: float):
    best = capacity(machine(slots, ms, bound), bound)
    assert (best.concurrency, best.requests_per_s) == (wanted, pytest.approx(per_s))


def test_few_requests_are_sent_where_more_load_does_not_pay():
    assert [each.concurrency for each in machine(1, 100.0, 1e9)] == [1, 2]
    assert [each.concurrency for each in machine(8, 100.0, 150.0)] == [1, 2, 4, 8, 16]


def test_a_load_that_loses_requests_is_no_capacity():
    good, broken = Load(1, (100.0,) * 12), Load(2, (1.0,) * 10 + (None,) * 2)
    assert broken.is_lost and broken.p95_ms == math.inf and next_concurrency([good, broken], None) is None
    assert capacity([good, broken], None) is good
    assert Load(1, ()).is_lost and Load(1, (None,) * 3).requests_per_s == 0.0
