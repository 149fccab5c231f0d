"""A latency passes when it is surely fast enough, fails when it is surely too slow, and its interval is true."""

import math

import numpy as np
import pytest

from leastwise.evidence import QuantileTest


@pytest.mark.parametrize(("scale", "outcome"), [(100.0, "pass"), (400.0, "fail")])
def test_latency_passes_when_fast_and_fails_when_slow(scale, outcome):
    test = QuantileTest(400.0, 100.0)
    test.add(scale * np.random.default_rng(0).lognormal(0.0, 0.4, 500))
    assert test.outcome == outcome and test.lower <= test.estimate <= test.upper


def test_the_latency_interval_covers_the_true_quantile():
    rng, true = np.random.default_rng(8), math.exp(0.4 * 1.6448536)
    missed = np.zeros(2)
    for _ in range(200):
        test = QuantileTest(true, 0.5)
        test.add(rng.lognormal(0.0, 0.4, 300))
        missed += [test.lower > true, test.upper < true]
    assert np.all(missed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200))


def test_lost_requests_are_slow_for_pass_and_instant_for_fail():
    test = QuantileTest(400.0, 100.0)
    test.add_lost(400)
    assert (test.outcome, test.upper, test.lower) == ("undecided", math.inf, 0.0)
