"""A closed set decides for the full set: nearly surely before it is drawn, surely then."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.evidence import ClosedSetTest


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
