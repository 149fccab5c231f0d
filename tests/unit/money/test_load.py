"""What an endpoint carries: when a higher load is worth a look, what counts, and what it makes of the bill."""

import math

import pytest

from leastwise.money.load import Carried, Level, next_level, repriced
from tests.unit.use_cases import use_case


def level(concurrency: int, per_s: float, ms: float = 10.0, lost: int = 0) -> Level:
    times = (ms,) * (100 - lost) + (None,) * lost
    return Level(concurrency, times, seconds=100 / per_s, answered=100)


@pytest.mark.parametrize(
    ("levels", "bound_ms", "most", "then"),
    [
        ((), None, 64, 1),
        ((), None, 0, None),
        ((level(1, 50),), None, 64, 2),
        ((level(1, 50), level(2, 52.4)), None, 64, None),
        ((level(1, 50), level(2, 52.6)), None, 64, 4),
        ((level(1, 50), level(2, 90), level(4, 60), level(8, 93)), None, 64, None),
        ((level(1, 50), level(2, 90)), None, 3, None),
        ((level(1, 50, ms=21),), 10, 64, None),
        ((level(1, 50, ms=20),), 10, 64, 2),
        ((level(1, 50, lost=6),), None, 64, None),
        ((level(1, 50, lost=5),), None, 64, 2),
    ],
)
def test_the_load_grows_while_it_is_worth_five_percent_and_within_twice_the_bound(
    levels: tuple[Level, ...], bound_ms: float | None, most: int, then: int | None
) -> None:
    assert next_level(levels, bound_ms, most) == then


def test_what_was_not_answered_took_for_ever() -> None:
    some = level(2, 50, ms=10, lost=2)
    assert (some.quantile_ms(0.5), some.quantile_ms(0.95), some.quantile_ms(0.99)) == (10, 10, math.inf)
    assert some.errors == 2 and Level(1, ()).quantile_ms(0.5) == math.inf and Level(1, ()).requests_per_s == 0


def test_the_capacity_is_the_fastest_level_whose_p95_meets_the_bound() -> None:
    carried = Carried((level(1, 50, 10), level(2, 90, 20), level(4, 120, 45)), bound_ms=25)
    assert carried.requests_per_s == 90 and carried.most is not None and carried.most.concurrency == 4
    assert carried.figures() == {
        "load.requests_per_s": 120,
        "load.requests_per_s_within_bound": 90,
        "load.concurrency": 2,
        "load.errors": 0,
        "load.p95_ms_at_1": 10,
        "load.p95_ms_at_2": 20,
        "load.p95_ms_at_4": 45,
    }
    slow = Carried((level(1, 50, 30),), bound_ms=25)
    assert slow.within_bound is None and slow.requests_per_s == 0 and slow.figures()["load.concurrency"] == 0
    lost = Carried((level(1, 50, lost=60),))
    assert lost.most is None and math.isfinite(sum(lost.figures().values()))


@pytest.mark.parametrize(
    ("carried", "machines", "more", "carries_less"),
    [(10, 2, 0.0, False), (9.1, 3, 0.2, False), (8.9, 3, 0.2, True), (5, 4, 0.4, True), (40, 1, -0.2, False)],
)
def test_the_bill_is_told_again_by_what_the_endpoint_carries(
    carried: float, machines: int, more: float, carries_less: bool
) -> None:
    case = use_case(
        hosting={"usd_per_month_per_machine": 100.0},
        traffic={"requests_per_month": 500_000, "peak_requests_per_s": 20.0},
    )
    made = repriced(case, 10.0, carried)
    assert made is not None and (made.priced_machines, made.machines) == (2, machines)
    assert made.more_usd_per_1k == pytest.approx(more) and made.carries_less is carries_less
    assert repriced(case, 10.0, 0.0) is None and repriced(case, 0.0, 10.0) is None
