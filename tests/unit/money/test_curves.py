"""A month's bill by traffic: every crossing is found where it is, and none that is not there."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.money.curves import SECONDS_PER_MONTH, Machines, Option, cheapest, crossings, sensitivity
from leastwise.money.economics import break_even
from leastwise.use_case.price import Price, Usage

A_MILLION_A_REQUEST = Usage(input_tokens=1_000_000)


def rented(usd: float, name: str = "rented", **more: float) -> Option:
    """An option whose request costs `usd`."""
    return Option(name=name, price=Price(input=usd, output=0), usage=A_MILLION_A_REQUEST, **more)


def owned(usd: float, a_month: float, fixed: float = 0.0, spares: int = 0) -> Option:
    machines = Machines(usd_per_month=usd, requests_per_s=a_month / SECONDS_PER_MONTH, spares=spares)
    return Option(name="owned", machines=machines, fixed_usd_per_month=fixed)


def test_a_bill_is_tokens_with_retries_machines_for_the_peak_spares_minimum_and_what_recurs() -> None:
    assert rented(2.0, retry_share=0.1).month(100).total_usd == pytest.approx(220)
    assert rented(2.0, minimum_usd_per_month=500).month(100).total_usd == 500
    assert rented(2.0, minimum_usd_per_month=500).month(1000).total_usd == 2000
    assert rented(2.0, price_decline_per_year=0.5).month(100, months_ahead=12).total_usd == pytest.approx(100)
    own = owned(100, a_month=1000, fixed=7, spares=1)
    assert [own.month(n).total_usd for n in (0, 1000, 1001)] == [207, 207, 307]
    assert own.month(1000, peak_ratio=3).total_usd == 407
    assert own.model_copy(update={"recurring_usd_per_month": 5.0}).month(1).recurring_usd == 5


@given(st.integers(1, 30), st.integers(1, 3000), st.integers(10, 1000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_crossings_are_where_the_sign_changes_on_a_fine_grid(usd: int, unit: int, each: int, fixed: int) -> None:
    one, other, most = rented(usd), owned(unit, each, fixed), 20.0 * each
    found = crossings(one, other, most)
    names = [cheapest((one, other), n).name for n in range(1, int(most))]
    changes = [n + 1 for n, (a, b) in enumerate(itertools.pairwise(names), 1) if a != b]
    at = [each.requests_per_month for each in found]
    for n in changes:
        assert any(abs(n - where) <= 1 + 1e-3 for where in at), (n, at)
    assert all(a.cheaper != b.cheaper for a, b in itertools.pairwise(found)) and at == sorted(at)


def test_first_and_last_crossing_are_the_break_even_of_the_same_figures() -> None:
    # $1 a million, $200 a machine that does 10M a day: the second machine loses again.
    per_request, month = 1_000, 365 / 12
    rent = Option(name="rented", price=Price(input=1, output=0), usage=Usage(input_tokens=per_request))
    own = owned(200, a_month=10_000_000 * month / per_request)
    known = break_even(1, 200, 10_000_000)
    found = crossings(rent, own, 40_000_000 * month / per_request)
    to_owned = [each.requests_per_month * per_request / month for each in found if each.cheaper == "owned"]
    assert to_owned[0] == pytest.approx(known.first) and to_owned[-1] == pytest.approx(known.sustained)
    assert [each.cheaper for each in found] == ["owned", "rented", "owned"]


def test_there_is_no_crossing_where_one_is_always_dearer() -> None:
    assert crossings(rented(1), rented(2, "dearer"), 1e6) == ()
    assert crossings(rented(0.001), owned(1000, 10), 1e6) == ()


def test_a_hosts_minimum_ends_where_its_tokens_reach_it() -> None:
    found = crossings(rented(3), rented(1, "hosted", minimum_usd_per_month=300), 1000)
    assert [(each.cheaper, each.requests_per_month) for each in found] == [("hosted", pytest.approx(100))]


def test_sensitivity_moves_the_crossing_the_way_it_must() -> None:
    found = {each.changed: each.requests_per_month for each in sensitivity(rented(1), owned(100, 500), 10_000)}
    assert found["as assumed"] == pytest.approx(100)
    assert found["token prices halved"] == pytest.approx(200)
    assert found["token prices doubled"] == pytest.approx(50)
    assert found["throughput doubled"] == pytest.approx(100)
    assert sensitivity(rented(0.1), owned(100, 500), 10_000)[0].requests_per_month is None
    with pytest.raises(ValueError, match="machines"):
        sensitivity(rented(1), rented(2, "other"), 10)
