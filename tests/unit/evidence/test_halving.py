"""A search by successive halving spends little on what does badly and keeps what does well."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.halving import better_half, schedule


@given(st.integers(1, 64), st.integers(16, 1000), st.integers(16, 5000))
def test_each_round_has_half_the_trials_on_at_most_twice_the_examples(trials: int, first: int, most: int) -> None:
    rounds = schedule(trials, first, most)
    assert len(rounds) == math.ceil(math.log2(trials))
    assert all(0 < each.examples <= most for each in rounds)
    for one, then in itertools.pairwise(rounds):
        assert then.trials == math.ceil(one.trials / 2) and one.examples <= then.examples <= 2 * one.examples


def test_the_better_half_is_by_metric_then_by_loss_and_what_diverged_comes_last() -> None:
    assert better_half([(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (math.nan, 0.1)]) == [2, 1]
    assert better_half([(math.nan, math.nan), (0.0, 9.0)]) == [1]


def test_the_best_setting_is_nearly_always_found_where_dev_tells() -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        truth, left = rng.permutation(8) / 10, list(range(8))
        for _, examples in schedule(8, 64, 10_000):
            seen = [(float(truth[at] + rng.normal(0, 0.5 / math.sqrt(examples))), 0.0) for at in left]
            left = [left[at] for at in better_half(seen)]
        found += truth[left[0]] == truth.max()
    assert found >= 190
