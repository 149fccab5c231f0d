"""A guard declines what it must and keeps its promise of false declines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.abstention import auroc, best, compare, conformal_threshold

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_a_new_in_scope_request_is_declined_no_more_often_than_allowed(share: float) -> None:
    rng = np.random.default_rng(0)
    declined = []
    for _ in range(4000):
        scores = rng.gamma(2.0, size=101)  # the law does not matter, only that the new one has the same
        declined.append(scores[-1] < conformal_threshold(scores[:-1].tolist(), share))
    assert np.mean(declined) <= share + 3 * np.sqrt(share / 4000)
    assert np.mean(declined) >= share - 0.01 - 3 * np.sqrt(share / 4000)  # k / 101, no less than it could be


@given(SCORES, st.floats(0, 0.99))
def test_on_dev_itself_no_more_are_declined_than_allowed(scores: list[float], share: float) -> None:
    assert np.mean(np.asarray(scores) < conformal_threshold(scores, share)) <= share


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(inside: list[float], outside: list[float]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs))


def test_the_score_that_declines_most_at_the_same_false_declines_is_chosen() -> None:
    rng = np.random.default_rng(1)
    inside = {"distance": rng.normal(2, 1, 300).tolist(), "max_probability": rng.normal(2, 1, 300).tolist()}
    outside = {"distance": rng.normal(-2, 1, 300).tolist(), "max_probability": rng.normal(1, 1, 300).tolist()}
    near, sure = compare(inside, outside, 0.05)
    assert best((sure, near)) == near
    assert near.false_decline <= 0.05
    assert near.declined is not None and near.declined > 0.9
    assert near.auroc is not None and sure.auroc is not None and near.auroc > 0.98 > sure.auroc


def test_without_out_of_scope_rows_the_first_score_is_taken_and_nothing_is_claimed_of_it() -> None:
    compared = compare({"distance": [0.1, 0.5, 0.9], "max_probability": [0.3, 0.4, 0.9]}, {}, 0.05)
    assert best(compared).score == "distance"
    assert best(compared).auroc is None and best(compared).declined is None


@pytest.mark.parametrize(("scores", "share"), [([], 0.05), ([float("nan")], 0.05), ([0.1], 1.0)])
def test_scores_that_mean_nothing_are_refused(scores: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="give finite scores"):
        conformal_threshold(scores, share)
