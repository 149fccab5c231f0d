"""Monthly cost, break-even and training cost; and a chapter's well-known figures, with what makes each come out."""

from dataclasses import astuple
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.money.economics import (
    DAYS_PER_MONTH,
    HOURS_PER_MONTH,
    BreakEven,
    MonthlyCost,
    break_even,
    from_scratch,
    machines_needed,
    monthly_api_usd,
    monthly_self_host,
    payback_months,
    recurring_usd_per_month,
    training_usd,
    true_cost_of_fine_tuning,
)
from leastwise.use_case.price import Price, Usage
from leastwise.use_case.training import Multipliers

NO_LIMIT = 1e12


def test_a_year_has_the_same_length_in_hours_and_in_days() -> None:
    assert pytest.approx(24 * DAYS_PER_MONTH) == HOURS_PER_MONTH


# --- monthly cost


def test_all_in_cost_of_a_thousand_requests_counts_variable_fixed_and_recurring() -> None:
    assert MonthlyCost(10, 70, 20).usd_per_1k(50_000) == pytest.approx(2.0)


def test_retries_are_paid_twice_and_retrieval_once() -> None:
    price = Price(input=1, output=1)
    assert monthly_api_usd(price, Usage(900, output_tokens=100), 1000, 0.1, 0.0005) == pytest.approx(1.1 + 0.5)


def test_self_hosting_costs_the_same_without_traffic_and_never_divides_by_it() -> None:
    cost = monthly_self_host(3, 800, 20, 500, 100)
    assert cost == MonthlyCost(0, 2920, 100)
    with pytest.raises(BadInput):
        cost.usd_per_1k(0)


def test_recurring_cost_is_spread_over_the_days_between() -> None:
    assert recurring_usd_per_month(300, 365 / 12) == pytest.approx(300)


@pytest.mark.parametrize(
    ("peak", "each", "spares", "machines"), [(0, 1, 0, 1), (0.3, 0.1, 0, 3), (10, 3, 0, 4), (10, 3, 1, 5), (9, 3, 0, 3)]
)
def test_machines_are_whole_at_least_one_and_spares_come_on_top(
    peak: float, each: float, spares: int, machines: int
) -> None:
    assert machines_needed(peak, each, spares) == machines


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 1e9), st.floats(1, 1e3))
def test_more_requests_spread_the_same_bill_thinner(v: float, f: float, r: float, n: float, more: float) -> None:
    assert 0 <= MonthlyCost(v, f, r).usd_per_1k(n * more) <= MonthlyCost(v, f, r).usd_per_1k(n) * (1 + 1e-12)


# --- break-even


def brute_force(usd: int, unit: int, capacity: int, fixed: int, units: int) -> tuple[Fraction | None, Fraction | None]:
    """First and sustained crossing within so many units, found by looking at every one of them."""
    rate = Fraction(usd, 10**6) * Fraction(365, 12)
    cheap: list[tuple[Fraction, Fraction]] = []  # where owning costs no more: from, to
    for n in range(1, units + 1):
        crossing = (fixed + n * unit) / rate
        if crossing <= n * capacity:
            cheap.append((max(crossing, Fraction((n - 1) * capacity)), Fraction(n * capacity)))
    if not cheap or cheap[-1][1] != units * capacity:
        return (cheap[0][0] if cheap else None), None
    sustained = cheap[-1][0]
    for start, end in reversed(cheap[:-1]):
        if end != sustained:
            break
        sustained = start
    return cheap[0][0], sustained


@given(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 10_000), st.integers(0, 20_000))
def test_break_even_is_what_trying_every_machine_finds(usd: int, unit: int, k: int, fixed: int) -> None:
    capacity = k * 10_000
    got = break_even(usd, unit, capacity, fixed)
    saves = Fraction(usd, 10**6) * Fraction(365, 12) * capacity - unit
    # Beyond this many machines no crossing can recur; where a full one saves nothing there is none to look for.
    settled = ceil((fixed + saves + unit) / saves) + 2 if saves > 0 else 50
    if settled > 2000:
        return
    first, sustained = brute_force(usd, unit, capacity, fixed, settled)
    assert got.first == (None if first is None else float(first))
    assert got.sustained == (float(sustained) if saves > 0 and sustained is not None else None)


def test_crossings_recur_with_each_added_machine() -> None:
    month = 365 / 12
    # $1 a million, a machine does 10M a day: it brings in $304 a month and costs $200, so the second one loses again.
    got = break_even(1, 200, 10_000_000)
    assert got.first == pytest.approx(200 / month * 1e6)
    assert got.sustained == pytest.approx(400 / month * 1e6)
    assert got.first < 10_000_000 < got.sustained


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, 1000, 10_000_000, 0), BreakEven(None, None)),  # a full machine brings in $304 and costs $1,000
        ((0, 1, 1_000_000, 0), BreakEven(None, None)),  # nobody is cheaper than free
        ((0, 0, 1, 0), BreakEven(0.0, 0.0)),  # nor dearer than it
        ((1.2, 36.5, 1_000_000, 0), BreakEven(1_000_000.0, None)),  # they touch when a machine is full, to the token
        ((1.2, 36.5, 1_000_000, 1), BreakEven(None, None)),
        ((1.2, 0, 1_000_000, 73), BreakEven(2_000_000.0, 2_000_000.0)),  # free machines: one crossing
    ],
)
def test_break_even_at_its_edges(arguments: tuple[float, float, float, float], expected: BreakEven) -> None:
    assert break_even(*arguments) == expected


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, -1, 1), (1, 1, 0), (1, 1, 1, -1), (float("nan"), 1, 1)])
def test_break_even_refuses_what_cannot_be(arguments: tuple[float, ...]) -> None:
    with pytest.raises(BadInput):
        break_even(*arguments)


# --- training, payback


@pytest.mark.parametrize(("one_off", "saving", "months"), [(600, 100, 6), (600, 0, None), (600, -5, None), (0, -5, 0)])
def test_payback(one_off: float, saving: float, months: float | None) -> None:
    assert payback_months(one_off, saving) == months


def test_training_takes_six_operations_a_parameter_and_token() -> None:
    assert training_usd(8e9, 1e9, 1e15, 0.5, 3.6) == pytest.approx(6 * 8e18 / 5e14 / 1000)
    with pytest.raises(BadInput, match="utilisation"):
        training_usd(1, 1, 1, 40, 1)


def test_true_cost_is_5_to_10_times_the_training_and_every_part_can_be_edited() -> None:
    assert 500 <= true_cost_of_fine_tuning(100).total_usd <= 1000
    assert true_cost_of_fine_tuning(100, Multipliers(curation=1, evaluation=0, retraining=0, people=0)).total_usd == 200
    assert len(astuple(true_cost_of_fine_tuning(100))) == 5


def test_from_scratch_shows_arithmetic_that_gives_its_figure() -> None:
    got = from_scratch(8e9, 15e12)
    assert got.usd == pytest.approx(6 * 8e9 * 15e12 / (989e12 * 0.4) / 3600 * 3.0)
    assert f"{got.usd:,.0f}" in got.steps[-1]
    assert len(got.steps) == 4


# --- the chapter's figures. Each holds under its own assumptions only, and some contradict each other.


def test_620_dollars_is_2m_tokens_a_day_at_10_dollars_in_a_month_of_31_days() -> None:
    assert 2 * 31 * 10 == 620
    assert [2 * 31 * usd for usd in (4, 5)] == [248, 310]  # at GPT-4o's mixed $4-5 it is $240-310


def test_41000_dollars_is_32770_plus_a_quarter() -> None:
    assert pytest.approx(41_000, rel=0.002) == 32_770 * 1.25


@pytest.mark.parametrize(("usd_per_million", "usd_per_month"), [(5, 1_500), (10, 3_000)])
def test_10m_tokens_a_day_breaks_even_without_staff_against_machines_at_that_price(
    usd_per_million: float, usd_per_month: float
) -> None:
    assert break_even(usd_per_million, usd_per_month, NO_LIMIT).first == pytest.approx(10e6, rel=0.02)


def test_33000_dollars_a_month_needs_110m_tokens_a_day_at_10_dollars_not_10m() -> None:
    assert break_even(10, 33_000, NO_LIMIT).first == pytest.approx(110e6, rel=0.02)


def test_2_dollars_20_at_50m_a_day_is_3300_a_month_and_contradicts_33000() -> None:
    a_month = 50 * DAYS_PER_MONTH
    assert 2.20 * a_month == pytest.approx(3_300, rel=0.02)
    assert 33_000 / a_month == pytest.approx(22, rel=0.02)


def test_10m_a_day_fails_with_an_operator_and_against_a_cheap_model() -> None:
    gpu = 1.2 * HOURS_PER_MONTH  # one always-on GPU; 80:20 of input and output
    flagship, flash = 0.8 * 2.5 + 0.2 * 10, 0.8 * 0.30 + 0.2 * 2.50
    assert 7e6 < (break_even(flagship, gpu, NO_LIMIT).first or 0) < 8e6
    assert 38.5e6 < (break_even(flash, gpu, NO_LIMIT).first or 0) < 41e6
    assert 39e6 < (break_even(flagship, gpu, NO_LIMIT, 4_000).first or 0) < 41e6
    assert 216e6 < (break_even(flash, gpu, NO_LIMIT, 4_000).first or 0) < 219e6


def test_against_a_cheap_model_it_may_never_come_once_a_gpu_is_full() -> None:
    assert break_even(0.74, 1.2 * HOURS_PER_MONTH, 30_000_000) == BreakEven(None, None)


def test_50000_against_5000_dollars_is_1370_tokens_a_document_and_28_percent_of_a_machine() -> None:
    # Read as a year of 10,000 documents a day; the machine at $2.04 an hour, shared, and nobody paid to run it.
    assert pytest.approx(50_000, rel=0.001) == 10_000 * 365 * 1_370 * 10 / 1e6
    assert pytest.approx(5_000, rel=0.01) == 0.28 * 12 * HOURS_PER_MONTH * 2.04
    assert 12 * HOURS_PER_MONTH * 2.04 > 3 * 5_000  # a machine of one's own costs more than three times as much


def test_25_times_cheaper_needs_125m_tokens_a_day_on_one_machine() -> None:
    # $10 to $0.40 a million, with an A10G machine at $2.08 an hour that is full around the clock.
    assert pytest.approx(0.40) == 10 / 25
    assert pytest.approx(0.40, rel=0.01) == 24 * 2.08 / 125
    assert 24 * 2.08 / 10 > 12 * 0.40  # at 10M a day the same machine costs $5 a million: 2 times cheaper, not 25


@pytest.mark.parametrize(
    ("price", "saved"),
    [
        (Price(input=2.5, cached=1.25, output=10), 0.37),
        (Price(input=3, cached=0.30, cache_write=3.75, output=15), 0.64),
    ],
)
def test_a_cached_prefix_of_2000_tokens_takes_36_to_64_percent_off_the_bill_not_90(price: Price, saved: float) -> None:
    cold, warm = Usage(2_300, 0, 0, 100), Usage(2_300, 2_000, 0, 100)
    assert 1 - monthly_api_usd(price, warm, 1) / monthly_api_usd(price, cold, 1) == pytest.approx(saved, abs=0.01)
