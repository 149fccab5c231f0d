"""A false PASS stays at alpha over all that a user does in a month. Figures: `benchmarks/error_control.py`."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.error_control import ALPHA, MONTHS, drift, wrong_months, wrong_with_sources
from leastwise.evidence.alpha_account import number_of, share_of_alpha, shares_rows

MONTHS_SIMULATED = 250
MOST = int(stats.binom.ppf(0.9999, MONTHS_SIMULATED, ALPHA)) / MONTHS_SIMULATED  # what alpha itself hardly exceeds


@pytest.mark.parametrize("name", MONTHS)
def test_no_month_passes_a_candidate_at_its_floor_more_often_than_alpha(name: str) -> None:
    assert wrong_months(MONTHS[name], True, MONTHS_SIMULATED) <= MOST


@pytest.mark.parametrize("name", ["the gate file saved again 10 times", "the gate set grown 6 times"])
def test_an_account_by_files_would_be_found_out(name: str) -> None:
    assert wrong_months(MONTHS[name], False, MONTHS_SIMULATED) > MOST


def test_rows_of_a_source_pass_at_most_alpha_counted_once_and_more_counted_one_by_one() -> None:
    sizes = [10] * 40
    assert wrong_with_sources(sizes, 0.3, by_unit=True, runs=MONTHS_SIMULATED) <= MOST
    assert wrong_with_sources(sizes, 0.3, by_unit=False, runs=MONTHS_SIMULATED) > MOST


def test_twenty_retrainings_never_end_below_the_floor_and_would_without_the_gate() -> None:
    assert drift(0.04, through_gate=True, runs=15).below == 0
    assert drift(0.04, through_gate=False, runs=5).below == 1


sets_of_rows = st.lists(st.sets(st.integers(0, 7), min_size=1, max_size=5), min_size=1, max_size=7)


@given(sets_of_rows, st.data())
def test_questions_whose_sets_share_rows_two_by_two_never_draw_more_than_alpha(
    sets: list[set[int]], data: st.DataObject
) -> None:
    """Whoever of two reads first: it is enough that one of them counts the other."""
    rows = [np.array(sorted(each), dtype=np.uint64) for each in sets]
    counted: list[list[int]] = [[] for _ in rows]
    for one, other in itertools.combinations(range(len(rows)), 2):
        who = data.draw(st.sampled_from(["one", "other", "both"]))
        counted[one] += [other] if who != "other" else []
        counted[other] += [one] if who != "one" else []
    shares = [share_of_alpha(1.0, number_of(rows[at], [rows[k] for k in counted[at]])) for at in range(len(rows))]
    for size in range(1, len(rows) + 1):
        for family in itertools.combinations(range(len(rows)), size):
            if all(shares_rows(rows[a], rows[b]) for a, b in itertools.combinations(family, 2)):
                assert sum(shares[at] for at in family) <= 1


@given(st.sets(st.integers(0, 2**64 - 1), max_size=30), st.sets(st.integers(0, 2**64 - 1), max_size=30))
def test_sets_share_rows_where_they_have_one_in_common(one: set[int], other: set[int]) -> None:
    hashes = [np.array(sorted(each), dtype=np.uint64) for each in (one, other)]
    assert shares_rows(*hashes) == shares_rows(*hashes[::-1]) == bool(one & other)
