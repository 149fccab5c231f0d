"""Rows that share a unit are one score."""

import math

from leastwise.evidence.units import unit_means


def test_rows_that_share_a_unit_count_once():
    assert unit_means([1, 0, 1, 1], ["a", "a", "b", "a"]).tolist() == [2 / 3, 1.0]
    assert unit_means([3.0, 5.0], ["a", "a"], high=math.inf).tolist() == [4.0]
    assert unit_means([0.1] * 3, ["a"] * 3).tolist() == [0.1]  # rounding never leaves the range of the scores
