"""The cheapest within one standard error of the best: never further behind, never dearer than the best, paired."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.choosing.one_standard_error import Variant, best_of, cheapest_within_one_error, interval, paired

SCORE = st.one_of(st.floats(0, 1), st.just(math.nan), st.sampled_from([0.0, 1.0]))
VARIANTS = st.integers(2, 12).flatmap(
    lambda rows: st.lists(
        st.builds(Variant, st.lists(SCORE, min_size=rows, max_size=rows), st.floats(0, 10)), min_size=1, max_size=6
    )
)


@given(VARIANTS)
def test_what_is_taken_is_no_dearer_than_the_best_and_at_most_one_paired_error_behind(variants: list[Variant]) -> None:
    best, taken = variants[best_of(variants)], variants[cheapest_within_one_error(variants)]
    assert taken.usd <= best.usd
    behind = paired(best.scores, taken.scores)
    assert taken is best or behind.mean <= behind.error < math.inf


@given(VARIANTS, st.randoms())
def test_the_order_of_the_variants_decides_nothing_between_unequal_ones(variants: list[Variant], rng: object) -> None:
    taken = variants[cheapest_within_one_error(variants)]
    turned = list(reversed(variants))
    again = turned[cheapest_within_one_error(turned)]
    assert again.usd == taken.usd
    assert (again.mean == taken.mean) or (math.isnan(again.mean) and math.isnan(taken.mean))


def test_rows_hard_for_both_do_not_hide_a_difference_that_every_other_row_shows() -> None:
    hard = [0.0, 1.0] * 50
    better, worse = [min(1.0, each + 0.1) for each in hard], hard
    assert paired(better, worse).error < np.std(hard) / math.sqrt(len(hard)) / 1.5
    assert cheapest_within_one_error([Variant(better, 2.0), Variant(worse, 1.0)]) == 0


def test_a_variant_that_was_lost_on_all_rows_is_never_taken_before_one_that_was_scored() -> None:
    assert cheapest_within_one_error([Variant([math.nan, math.nan], 0.0), Variant([0.0, 0.0], 9.0)]) == 1


def test_the_rule_keeps_the_best_where_it_is_surely_better_and_saves_money_where_it_is_not() -> None:
    rng = np.random.default_rng(0)
    sure = alike = 0
    for _ in range(200):
        cheap, near, far = (rng.random(100) < p for p in (0.6, 0.61, 0.85))
        as_scores = [[float(hit) for hit in hits] for hits in (cheap, near, far)]
        alike += cheapest_within_one_error([Variant(as_scores[1], 2.0), Variant(as_scores[0], 1.0)]) == 1
        sure += cheapest_within_one_error([Variant(as_scores[2], 2.0), Variant(as_scores[0], 1.0)]) == 0
    assert sure > 190
    assert alike > 140


@pytest.mark.parametrize(("right", "of"), [(0, 20), (20, 20), (71, 100)])
def test_the_interval_for_reading_holds_its_mean_and_stays_in_its_range(right: int, of: int) -> None:
    low, high = interval([1.0] * right + [0.0] * (of - right))
    assert 0 <= low <= right / of <= high <= 1
    assert high - low < 0.25


def test_without_scores_nothing_is_known() -> None:
    assert interval([]) == (0.0, 1.0)
    assert paired([1.0], [0.0]).error == math.inf
