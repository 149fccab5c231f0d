"""Drawing texts by uncertainty and distance: what is drawn early, what last, and that each is drawn once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.label_choice import SHORTLIST, choose, shortlisted, uncertainty

GROUPS = np.repeat(np.eye(4), 50, axis=0) + np.random.default_rng(0).normal(0, 0.01, (200, 4))


def test_a_sure_row_has_no_uncertainty_and_a_tie_has_all_of_it() -> None:
    np.testing.assert_allclose(
        uncertainty(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.6, 0.3, 0.1]])), [0.0, 1.0, 0.7]
    )
    assert uncertainty(np.ones((2, 1))).tolist() == [0.0, 0.0]


@given(st.integers(0, 60), st.integers(0, 2**16))
def test_every_row_is_drawn_at_most_once_and_equal_seeds_draw_alike(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, weights = rng.integers(0, 3, (60, 2)).astype(float), rng.integers(0, 2, 60).astype(float)
    drawn = choose(vectors, weights, count, seed)
    assert len(set(drawn.tolist())) == len(drawn) == count
    assert drawn.tolist() == choose(vectors, weights, count, seed).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_each_group_is_met_before_any_is_met_twice(seed: int) -> None:
    assert {int(row) // 50 for row in choose(GROUPS, np.ones(200), 4, seed)} == {0, 1, 2, 3}


def test_a_group_that_is_labelled_already_comes_after_the_others() -> None:
    drawn = choose(GROUPS, np.ones(200), 3, 0, labelled=GROUPS[:50])
    assert {int(row) // 50 for row in drawn} == {1, 2, 3}


def test_what_is_unsure_is_drawn_and_what_is_sure_only_when_nothing_else_is_left() -> None:
    weights = np.where(np.arange(200) < 150, 0.0, 1.0)
    assert all(row >= 150 for row in choose(GROUPS, weights, 50, 0))
    assert len(choose(GROUPS, weights, 60, 0)) == 60


def test_only_the_most_unsure_are_on_the_shortlist_however_many_there_are() -> None:
    weights = shortlisted(np.arange(20.0), 2)
    assert np.flatnonzero(weights).tolist() == list(range(20 - 2 * SHORTLIST, 20))
    assert shortlisted(np.zeros(4), 3).tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("weights", "count"), [(np.ones(199), 3), (np.full(200, -1.0), 3), (np.full(200, np.nan), 3), (np.ones(200), 201)]
)
def test_weights_that_are_none_are_refused(weights: np.ndarray, count: int) -> None:
    with pytest.raises(ValueError, match="choose"):
        choose(GROUPS, weights, count, 0)
