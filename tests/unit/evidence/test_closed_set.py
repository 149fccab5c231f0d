"""A closed set decides for the full set: nearly surely before it is drawn, surely then."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leastwise.evidence import ClosedSetTest, closed_set
from leastwise.evidence.betting import TICKS


@settings(max_examples=60, deadline=None)
@given(good=st.integers(0, 60), seed=st.integers(0, 99), bound=st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_an_exhausted_closed_set_is_certain(good, seed, bound):
    scores = np.random.default_rng(seed).permutation(np.arange(60) < good).astype(float)
    test = ClosedSetTest(60, bound, alpha_pass=1e-9, alpha_fail=1e-9)  # nothing but certainty decides
    test.add(scores)
    assert test.outcome == ("pass" if good / 60 >= bound else "fail")
    assert test.lower == pytest.approx(good / 60) == test.upper
    with pytest.raises(ValueError, match="closed set"):
        test.add(1.0)


def test_a_closed_set_agrees_with_the_full_set_before_it_is_exhausted():
    rng, wrong, drawn = np.random.default_rng(2), 0, 0
    for run in range(200):
        good = (430, 470)[run % 2]
        scores, test = rng.permutation(np.arange(500) < good).astype(float), ClosedSetTest(500, 0.9)
        for first in range(0, 500, 25):
            test.add(scores[first : first + 25])
            if test.outcome != "undecided":
                break
        wrong += test.outcome != ("pass" if good >= 450 else "fail")
        drawn += test.n
    assert wrong <= 10 and drawn / 200 < 400


@pytest.mark.parametrize("seed", range(5))
def test_a_bound_asked_for_only_at_the_end_is_the_one_that_was_asked_for_at_every_look(seed: int):
    scores = np.random.default_rng(seed).random(400).round(1)
    often, once = (ClosedSetTest(500, 0.5, 0.1, 0.01, 0.01) for _ in range(2))
    for look in np.array_split(scores, 16):
        often.add(look)
        once.add(look)
        assert often.lower <= often.upper
    assert (once.lower, once.upper) == (often.lower, often.upper)


@settings(deadline=None)
@example([0.0, 0.0, 0.0, 0.0, 0.3, 1.0, 1.0, 0.3], 0.001)
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=60), st.sampled_from([0.001, 0.05, 0.3]))
def test_the_bound_is_the_last_mean_that_some_draw_rejects(scores: list[float], alpha: float):
    test = ClosedSetTest(80, 0.5, 0.2, alpha, alpha)
    test.add(scores)
    side = test._passing
    reached = round(side.lower * TICKS)
    drawn = np.array(scores)
    won, before = np.log1p(drawn * side._odds[:, None]), closed_set._Before(0, 0.0, np.zeros(side._odds.size))
    ahead = [
        side._capital(drawn, won, before, tick / TICKS)[0].max() + np.log(alpha) for tick in (reached, reached + 1)
    ]
    by_total = side.lower == pytest.approx(sum(scores) / 80, abs=1e-12)
    assert ahead[1] < 0 and (ahead[0] >= 0 or by_total or reached == 0)
