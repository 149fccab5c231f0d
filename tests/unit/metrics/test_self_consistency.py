"""Repeated answers agree as often as two fresh ones would."""

import numpy as np
import pytest

from leastwise.metrics import self_consistency


def test_self_consistency_is_the_chance_that_two_answers_agree_however_many_are_sampled():
    assert self_consistency(["a", "a"]) == 1 and self_consistency(["a", "b"]) == 0
    rng, chance = np.random.default_rng(0), 0.7**2 + 0.3**2
    for samples in (2, 5):
        drawn = [self_consistency((rng.random(samples) < 0.7).tolist()) for _ in range(4000)]
        assert np.mean(drawn) == pytest.approx(chance, abs=0.03)
    with pytest.raises(ValueError, match="at least two"):
        self_consistency(["a"])
