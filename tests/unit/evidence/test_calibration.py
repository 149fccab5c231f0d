"""Likelihoods of labels as probabilities: one temperature changes no answer, a class prior undoes a label's head
start, and neither learns from a label what it may not.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from leastwise.evidence.choosing.calibration import (
    FLOOR,
    Calibration,
    calibration_error,
    expected_calibration_error,
    fitted,
    most_likely,
    probabilities,
)

LIKELY = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(-40, 0), min_size=2, max_size=4)


@given(LIKELY, st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_a_temperature_changes_no_answer(
    likely: dict[str, float], temperature: float
) -> None:
    found = probabilities(likely, Calibration(temperature=temperature))
    assert sum(found.values()) == pytest.approx(1.0)
    label, probability = most_likely(likely, Calibration(temperature=temperature))
    assert max(FLOOR, likely[label]) == pytest.approx(max(max(FLOOR, each) for each in likely.values()), abs=1e-9)
    assert probability == max(found.values())


@given(LIKELY, st.floats(-5, 5))
def test_what_all_labels_have_in_common_says_nothing(likely: dict[str, float], shift: float) -> None:
    bare = {name: max(FLOOR, each) for name, each in likely.items()}
    moved = {name: each + shift for name, each in bare.items()}
    if all(each + shift > FLOOR for each in bare.values()):
        found, again = (probabilities(each, Calibration()) for each in (bare, moved))
        assert [*found.values()] == pytest.approx([*again.values()], abs=1e-9)


def simulated(
    rows: int, sharpness: float, head_start: float, seed: int = 0
) -> tuple[list[dict[str, float]], list[str]]:
    """Log-likelihoods of three labels: right ones likelier, `a` with a head start, all `sharpness` times too sure."""
    rng, names = np.random.default_rng(seed), ["a", "b", "c"]
    truth = rng.integers(0, 3, rows)
    signal = rng.normal(0, 1, (rows, 3)) + 1.5 * np.eye(3)[truth]
    raw = sharpness * signal + np.array([head_start, 0.0, 0.0])
    logs = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    return [dict(zip(names, map(float, row), strict=True)) for row in logs], [names[at] for at in truth]


def right(likely: list[dict[str, float]], labels: list[str], calibration: Calibration) -> float:
    return float(
        np.mean([most_likely(each, calibration)[0] == label for each, label in zip(likely, labels, strict=True)])
    )


def test_a_class_prior_gives_back_what_a_labels_head_start_took() -> None:
    likely, labels = simulated(600, sharpness=1.0, head_start=3.0)
    rows, held = (likely[:300], labels[:300]), (likely[300:], labels[300:])
    bare, prior = (fitted(*rows, with_prior=each) for each in (False, True))
    assert right(*held, prior) > right(*held, bare) + 0.1


def test_one_temperature_takes_back_what_a_model_is_too_sure_of() -> None:
    likely, labels = simulated(600, sharpness=4.0, head_start=0.0)
    calibration = fitted(likely[:300], labels[:300], with_prior=False)
    assert 1.5 < calibration.temperature < 6
    loss = [
        np.mean(
            [
                -math.log(max(probabilities(each, how)[label], 1e-12))
                for each, label in zip(likely[300:], labels[300:], strict=True)
            ]
        )
        for how in (Calibration(), calibration)
    ]
    assert loss[1] < loss[0] - 0.2


@given(st.permutations(["a", "b", "c"] * 4))
def test_no_label_enters_the_class_prior(labels: list[str]) -> None:
    likely, _ = simulated(12, 1.0, 1.0)
    found = fitted(likely, labels, with_prior=True)
    assert found.log_prior == fitted(likely, list(reversed(labels)), with_prior=True).log_prior


def test_the_prior_is_the_mean_probability_of_each_label() -> None:
    likely, labels = simulated(50, 1.0, 1.0)
    found = fitted(likely, labels, with_prior=True)
    assert sum(math.exp(each) for each in found.log_prior.values()) == pytest.approx(1.0, abs=1e-3)
    assert entropy([math.exp(each) for each in found.log_prior.values()]) < math.log(3)


def test_nothing_is_fitted_on_nothing() -> None:
    assert fitted([], [], with_prior=True) == Calibration()


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.randoms())
def test_a_calibration_error_is_a_share_whatever_the_order_of_the_rows(
    rows: list[tuple[float, bool]], random: Any
) -> None:
    sure, right = [each for each, _ in rows], [each for _, each in rows]
    found = expected_calibration_error(sure, right)
    assert 0 <= found <= 1
    assert expected_calibration_error([float(each) for each in right], right) == 0
    distinct = sorted({round(each, 6): is_right for each, is_right in rows}.items())
    shuffled = random.sample(distinct, len(distinct))
    errors = [expected_calibration_error([a for a, _ in each], [b for _, b in each]) for each in (distinct, shuffled)]
    assert errors[0] == pytest.approx(errors[1])


def test_a_calibration_error_is_the_distance_between_confidence_and_share_of_right_answers() -> None:
    assert expected_calibration_error([0.9] * 100, [True] * 60 + [False] * 40, bins=1) == pytest.approx(0.3)
    assert expected_calibration_error([0.9] * 50 + [0.1] * 50, [True] * 50 + [False] * 50, bins=2) == pytest.approx(0.1)
    assert expected_calibration_error([], []) == 0.0


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_one_temperature_lowers_the_error_of_what_is_too_sure_or_not_sure_enough(sharpness: float) -> None:
    likely, expected = simulated(2000, sharpness, head_start=0.0)
    found = calibration_error(likely, expected, with_prior=False)
    assert found.rows == 2000 and found.before > 0.1 and found.after < 0.05


def test_the_error_at_a_temperature_is_of_rows_it_was_not_fitted_on() -> None:
    """Of labels that say nothing a temperature can be fitted on eight rows, and helps the others by chance alone."""
    errors = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        likely = [dict(zip("abcd", np.log(random.dirichlet([0.2] * 4) + 1e-9), strict=True)) for _ in range(8)]
        expected = [str(each) for each in random.choice(list("abcd"), 8)]
        errors.append(calibration_error(likely, expected, with_prior=False).after)
    assert np.mean(errors) > 0.1
