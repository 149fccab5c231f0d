"""The examples that are named are about what the real gate takes, before it has looked at some and after."""

import math
from typing import Any

import numpy as np
import pytest

from leastwise.evidence import MeanTest
from leastwise.evidence.examples_needed import examples_to_decide, expected_examples, more_to_decide
from leastwise.evidence.measurement import Measurement


@pytest.mark.parametrize(
    ("bound", "margin", "alpha_pass", "alpha_fail"),
    [(0.9, 0.05, 0.05, 0.05), (0.72, 0.08, 0.0034, 0.0125), (0.95, 0.05, 0.0034, 0.0125)],
)
def test_the_examples_it_names_are_about_what_the_real_gate_takes(
    bound: float, margin: float, alpha_pass: float, alpha_fail: float
) -> None:
    rng = np.random.default_rng(0)

    def taken(quality: float) -> float:
        counts = []
        for _ in range(40):
            test = MeanTest(bound, margin, alpha_pass, alpha_fail)
            while test.outcome == "undecided" and test.n < 20_000:
                test.add((rng.random(25) < quality).astype(float))
            counts.append(test.n)
        return float(np.mean(counts))

    named = examples_to_decide(bound, margin, alpha_pass, alpha_fail)
    assert 0.6 < named / max(taken(bound), taken(bound - margin)) < 1.5


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_surer_and_narrower_gates_need_more(alpha: float) -> None:
    here = examples_to_decide(0.9, 0.05, alpha, alpha)
    assert here < examples_to_decide(0.9, 0.05, alpha / 2, alpha / 2)
    assert here < examples_to_decide(0.9, 0.04, alpha, alpha)
    assert examples_to_decide(1.0, 0.05, alpha, alpha) > 0


def undecided(estimate: float, n: int = 100, **changes: Any) -> Measurement:
    fields = {"name": "quality", "lower": 0.5, "upper": 0.95, "bound": 0.9, "margin": 0.05} | changes
    return Measurement(estimate=estimate, n=n, alpha_pass=0.01, alpha_fail=0.01, **fields)


@pytest.mark.parametrize("quality", [0.80, 0.85, 0.863, 0.887, 0.90, 0.95])
def test_the_examples_still_to_come_are_about_what_the_real_gate_takes(quality: float) -> None:
    rng, counts = np.random.default_rng(1), []
    for _ in range(60):
        test = MeanTest(0.9, 0.05, 0.01, 0.01)
        while test.outcome == "undecided":
            test.add((rng.random(25) < quality).astype(float))
        counts.append(test.n)
    named = more_to_decide(undecided(quality, n=0))
    assert named and 0.5 < named / np.mean(counts) < 2


def test_the_examples_seen_count_and_what_seemed_enough_but_was_not_names_some_more() -> None:
    whole, rest = more_to_decide(undecided(0.9, n=0)), more_to_decide(undecided(0.9, n=100))
    assert whole and rest == whole - 100
    assert more_to_decide(undecided(0.9, n=10 * whole)) == pytest.approx(whole / 10, abs=1)
    assert more_to_decide(undecided(1.0, n=0, bound=1.0)) is not None


@pytest.mark.parametrize(
    ("estimate", "changes", "said"),
    [
        (0.875, {}, None),  # halfway between floor and bound
        (math.nan, {}, None),
        (900.0, {"name": "p95_latency_ms", "bound": 1000.0, "margin": 100.0, "upper": 2000.0}, None),
        (1.0, {"name": "usd_per_1k_requests", "bound": 1.0, "margin": 0.1, "upper": 2.0}, None),
        (0.9, {"margin": 0.0}, None),
        (0.92, {"lower": 0.86}, 0),
        (0.7, {"upper": 0.8}, 0),
    ],
)
def test_no_number_is_named_where_none_can_be(estimate: float, changes: dict[str, Any], said: int | None) -> None:
    assert more_to_decide(undecided(estimate, **changes)) == said


@pytest.mark.parametrize("quality", [0.2, 0.5, 0.7, 0.9, 0.99])
def test_the_examples_expected_are_about_what_the_real_gate_takes(quality: float) -> None:
    expected = expected_examples(quality, 0.8, 0.1, 0.005, 0.0125)
    rng, counts, outcomes = np.random.default_rng(3), [], []
    for _ in range(60):
        test = MeanTest(0.8, 0.1, 0.005, 0.0125)
        while test.outcome == "undecided" and test.n < 5000:
            test.add((rng.random(5) < quality).astype(float))
        counts.append(test.n)
        outcomes.append(test.outcome == "pass")
    assert 0.5 < max(expected.examples, 10) / np.mean(counts) < 2  # less than half a look makes no difference
    if abs(quality - 0.7) > 0.02:
        assert expected.passes == (np.mean(outcomes) > 0.5)
