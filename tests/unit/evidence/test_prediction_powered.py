"""A judge that is too kind cannot make a bad candidate pass; people's grades of a few answers correct it."""

import numpy as np
import pytest

from leastwise.errors import BadInput
from leastwise.evidence import MeanTest
from leastwise.evidence.prediction_powered import PredictionPoweredTest


def graded(rng, share, n, kind=0.1, harsh=0.05):
    """Human grades, and those of a judge that lets `kind` of the bad answers pass and rejects `harsh` of the good."""
    human = (rng.random(n) < share).astype(float)
    flip = rng.random(n) < np.where(human == 1, harsh, kind)
    return human, np.where(flip, 1 - human, human)


def outcomes(share, runs, kind, harsh, humans=400, bound=0.8, margin=0.15):
    rng, corrected, naive = np.random.default_rng(3), [], []
    for _ in range(runs):
        human, judge = graded(rng, share, humans, kind, harsh)
        scores = graded(rng, share, 1500, kind, harsh)[1]
        for test, found in (
            (PredictionPoweredTest(bound, margin, human, judge), corrected),
            (MeanTest(bound, margin), naive),
        ):
            test.add(scores)
            found.append(test.outcome)
    return corrected, naive


def test_a_kind_judge_passes_what_is_at_the_floor_and_the_corrected_test_rarely_does():
    corrected, naive = outcomes(0.65, 300, kind=0.6, harsh=0.0)
    assert naive.count("pass") > 0.9 * 300
    assert corrected.count("pass") <= 0.05 * 300 + 3 * (300 * 0.05 * 0.95) ** 0.5


def test_a_harsh_judge_fails_what_meets_the_bound_and_the_corrected_test_rarely_does():
    corrected, naive = outcomes(0.8, 300, kind=0.0, harsh=0.3)
    assert naive.count("fail") > 0.9 * 300
    assert corrected.count("fail") <= 0.05 * 300 + 3 * (300 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(("share", "outcome"), [(0.9, "pass"), (0.5, "fail")])
def test_what_is_clear_is_decided_either_way(share, outcome):
    corrected, _ = outcomes(share, 40, kind=0.2, harsh=0.05)
    assert corrected.count(outcome) >= 36


def test_the_interval_covers_the_mean_human_grade_and_gives_the_outcome():
    rng, missed = np.random.default_rng(9), np.zeros(2)
    for _ in range(300):
        human, judge = graded(rng, 0.75, 300, 0.5, 0.1)
        test = PredictionPoweredTest(0.8, 0.1, human, judge)
        for scores in np.split(graded(rng, 0.75, 300, 0.5, 0.1)[1], 12):
            test.add(scores)
        missed += [test.lower > 0.75, test.upper < 0.75]
        assert test.outcome == ("pass" if test.lower >= 0.8 - 0.1 else "fail" if test.upper < 0.8 else "undecided")
        assert test.error_interval[0] <= test.mean_error <= test.error_interval[1]
    assert np.all(missed / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5)


def test_with_fewer_than_100_human_grades_a_judge_only_reports():
    with pytest.raises(BadInput, match="99 human grades"):
        PredictionPoweredTest(0.8, 0.1, np.ones(99), np.ones(99))
    with pytest.raises(ValueError, match="100 human grades against 101"):
        PredictionPoweredTest(0.8, 0.1, np.ones(100), np.ones(101))


def test_an_estimate_is_the_judges_mean_plus_its_mean_error():
    test = PredictionPoweredTest(0.8, 0.1, np.r_[np.zeros(50), np.ones(50)], np.ones(100))
    test.add([1, 1, 0, 1])
    assert (test.mean_error, test.estimate) == (-0.5, 0.25)
