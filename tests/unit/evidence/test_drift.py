"""A quiet window stays quiet, a changed one alarms, whichever way it changed. Real embeddings are tested elsewhere."""

import numpy as np
import pytest

from leastwise.errors import BadInput
from leastwise.evidence.drift import drift_test

TOPICS = np.random.default_rng(7).normal(size=(5, 64))


def sample(rng, n, shares=(0.2,) * 5, shift=0.0):
    return TOPICS[rng.choice(5, n, p=shares)] + 0.5 * rng.normal(size=(n, 64)) + shift


def alarms(runs=30, **changed):
    rng = np.random.default_rng(1)
    return np.mean([drift_test(sample(rng, 200), sample(rng, 200, **changed), seed=i).drifted for i in range(runs)])


def test_two_samples_of_one_distribution_alarm_at_most_alpha_of_the_time():
    assert alarms(runs=100) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_a_changed_topic_mix_alarms():
    assert alarms(shares=(0.5, 0.125, 0.125, 0.125, 0.125)) > 0.9


def test_a_small_shift_of_every_embedding_alarms():
    assert alarms(shift=0.1) > 0.9


def test_the_same_seed_gives_the_same_answer_and_the_reason_says_what_was_seen():
    rng = np.random.default_rng(2)
    old, new = sample(rng, 1500), sample(rng, 100, shift=1.0)
    first = drift_test(old, new, seed=3)
    assert first == drift_test(old, new, seed=3)
    assert first.drifted and "classifier" in first.reason and first.auc > 0.9


@pytest.mark.parametrize("broken", [np.zeros((3, 4)), np.zeros(50), np.full((50, 64), np.nan), np.zeros((50, 3))])
def test_unusable_embeddings_are_refused(broken):
    with pytest.raises(BadInput):
        drift_test(np.zeros((50, 64)), broken)


def test_constant_embeddings_do_not_alarm():
    assert not drift_test(np.ones((50, 4)), np.ones((50, 4))).drifted
