"""The sequential tests decide what they promise, at every look, however scores are grouped. Figures: benchmarks."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.evidence import ClosedSetTest, CostTest, MeanTest, PairedTest, QuantileTest

BINARY = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=150)
MIXED = st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=1, max_size=150)
CUTS = st.lists(st.integers(0, 150), max_size=6)
BETTER = st.sampled_from(["higher", "lower"])
GATES = st.sampled_from([(0.9, 0.05), (0.7, 0.1), (0.97, 0.02), (0.5, 0.01), (0.3, 0.2)])


def grouped(scores, cuts):
    return np.split(np.array(scores), sorted(cut for cut in cuts if cut < len(scores)))


def make_mean(gate, better):
    return MeanTest(*gate, better=better)


MAKERS = {
    "mean": make_mean,
    "closed": lambda gate, better: ClosedSetTest(160, *gate, better=better),
    "cost": lambda gate, better: CostTest(*gate, worst_case_usd=1.0, fixed_usd=0.1),
    "latency": lambda gate, better: QuantileTest(*gate),
}


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=40, deadline=None)
@given(scores=MIXED, cuts=CUTS, gate=GATES, better=BETTER)
def test_the_same_scores_in_other_batches_give_the_same_interval_and_outcome(kind, scores, cuts, gate, better):
    whole, cut = MAKERS[kind](gate, better), MAKERS[kind](gate, better)
    whole.add(scores)
    for batch in grouped(scores, cuts):
        cut.add(batch)
        assert cut.lower <= math.inf  # asking in between must not matter either
    assert (whole.lower, whole.upper, whole.outcome, whole.n) == (cut.lower, cut.upper, cut.outcome, cut.n)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=40, deadline=None)
@given(scores=MIXED, cuts=CUTS, gate=GATES, better=BETTER)
def test_an_interval_never_widens_and_a_verdict_never_changes(kind, scores, cuts, gate, better):
    test = MAKERS[kind](gate, better)
    lower, upper, outcome = -math.inf, math.inf, "undecided"
    for batch in grouped(scores, cuts):
        test.add(batch)
        if test.outcome == outcome:  # the verdict itself moves the ends by one rounding step at most
            assert test.lower >= lower and test.upper <= upper
        assert test.lower >= lower - 1e-12 and test.upper <= upper + 1e-12
        assert outcome in ("undecided", test.outcome)
        lower, upper, outcome = test.lower, test.upper, test.outcome


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=60, deadline=None)
@given(scores=MIXED, gate=GATES, better=BETTER)
def test_the_interval_alone_gives_the_outcome(kind, scores, gate, better):
    test = MAKERS[kind](gate, better)
    test.add(scores)
    bound, margin = gate
    if test.better == "higher":
        again = "pass" if test.lower >= bound - margin else "fail" if test.upper < bound else "undecided"
    else:
        again = "pass" if test.upper <= bound + margin else "fail" if test.lower > bound else "undecided"
    assert test.outcome == again


@settings(max_examples=40, deadline=None)
@given(scores=BINARY, gate=GATES)
def test_lower_is_better_mirrors_higher_is_better(scores, gate):
    bound, margin = gate
    higher, lower = MeanTest(1 - bound, margin), MeanTest(bound, margin, better="lower")
    if 1 - bound - margin <= 0:
        return
    higher.add(1 - np.array(scores))
    lower.add(scores)
    assert lower.outcome == higher.outcome
    assert lower.upper == pytest.approx(1 - higher.lower, abs=1e-6)


@pytest.mark.parametrize(("draw", "mean", "runs"), [("binary", 0.85, 2000), ("graded", 0.85, 250), ("mixed", 0.5, 200)])
def test_the_interval_covers_the_mean_at_every_look(draw, mean, runs):
    rng = np.random.default_rng(11)
    missed = np.zeros(2)
    for _ in range(runs):
        test = MeanTest(mean + 0.05, 0.1)
        scores = (rng.random(200) < mean).astype(float) if draw != "graded" else rng.beta(5 * mean, 5 - 5 * mean, 200)
        if draw == "mixed":
            scores[rng.random(200) < 0.3] = mean
        test.add(scores)  # intervals only narrow, so a miss at any look is a miss at the last
        missed += [test.lower > mean, test.upper < mean]
    assert np.all(missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs))


@pytest.mark.parametrize(("share", "wrong"), [(0.85, "pass"), (0.9, "fail")])
def test_a_candidate_at_the_limit_is_rarely_judged_wrongly(share, wrong):
    rng = np.random.default_rng(5)
    outcomes = []
    for _ in range(1000):
        test = MeanTest(0.9, 0.05)
        test.add((rng.random(600) < share).astype(float))
        outcomes.append(test.outcome)
    assert 0 < outcomes.count(wrong) <= 50 + 3 * math.sqrt(1000 * 0.05 * 0.95)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("n", [1, 1000, 1_000_000])
def test_extreme_inputs_neither_crash_nor_reject_what_is_true(score, n):
    test = MeanTest(0.9, 0.05)
    test.add(np.full(n, score))
    assert test.lower <= score <= test.upper
    assert test.outcome == ("undecided" if n == 1 and score > 0 else test.outcome)
    assert n == 1 or test.outcome == ("pass" if score == 1 else "fail")


def test_a_bound_of_one_fails_at_the_first_error_and_never_before():
    test = MeanTest(1.0, 0.05)
    test.add(np.ones(30))
    assert test.outcome == "undecided" and test.upper == 1.0
    test.add(0)
    assert test.outcome == "fail"


def test_a_million_binary_scores_in_looks_of_25_take_at_most_ten_seconds():
    scores = (np.random.default_rng(0).random(1_000_000) < 0.8995).astype(float)
    test, start = MeanTest(0.9, 0.001), time.process_time()
    for first in range(0, scores.size, 25):
        test.add(scores[first : first + 25])
        assert test.outcome != "pass" or test.n > 1000
    assert time.process_time() - start < 10


@pytest.mark.parametrize("score", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_score_is_refused_and_named(score):
    with pytest.raises(ValueError, match="score 1 is"):
        MeanTest(0.9, 0.05).add([1.0, score])


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeanTest(0.9, 0.0),
        lambda: MeanTest(0.05, 0.05),
        lambda: MeanTest(1.1, 0.05),
        lambda: MeanTest(math.nan, 0.05),
        lambda: MeanTest(0.9, 0.05, alpha_pass=0.0),
        lambda: MeanTest(0.9, 0.05, better="more"),
        lambda: QuantileTest(0.0, 10.0),
        lambda: CostTest(0.1, 0.01, worst_case_usd=0.0),
        lambda: ClosedSetTest(0, 0.9),
        lambda: ClosedSetTest(10, 0.9, -0.1),
    ],
)
def test_meaningless_gates_are_refused(make):
    with pytest.raises(BadInput):
        make()


def test_lost_examples_count_against_pass_and_against_fail():
    clean, lossy = MeanTest(0.9, 0.05), MeanTest(0.9, 0.05)
    scores = (np.random.default_rng(3).random(300) < 0.88).astype(float)
    lossy.add_lost(10)
    for test in (clean, lossy):
        test.add(scores)
    assert lossy.lower < clean.lower and lossy.upper > clean.upper
    assert (lossy.n, lossy.lost, lossy.estimate) == (300, 10, clean.estimate)
    hopeless = MeanTest(0.9, 0.05)
    hopeless.add_lost(10_000)
    assert hopeless.outcome != "pass"


def test_binary_only_tests_refuse_graded_scores():
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        MeanTest(0.9, 0.05, graded=False).add([1.0, 0.5])


def test_cost_adds_the_fixed_share_and_decides_on_the_sum():
    usd = np.random.default_rng(0).uniform(0.0004, 0.0008, 300)
    cheap, dear = CostTest(0.001, 0.0003, 0.003), CostTest(0.001, 0.0003, 0.003, fixed_usd=0.002)
    assert dear.outcome == "fail" and cheap.outcome == "undecided"
    cheap.add(usd)
    assert cheap.outcome == "pass" and cheap.estimate == pytest.approx(usd.mean())
    assert CostTest(0.001, 0.0003, 0.0012).outcome == "pass"  # it cannot cost more than that
    with pytest.raises(ValueError, match="outside"):
        cheap.add(-0.0001)


def test_a_cost_above_the_worst_case_enters_as_it_is_and_can_fail_but_never_pass():
    rare = CostTest(0.001, 0.0003, 0.003)
    rare.add([0.0005] * 400)
    assert rare.outcome == "pass"
    rare.add([0.0031])
    assert (rare.outcome, rare.above, rare.most, rare.upper) == ("undecided", 1, 0.0031, math.inf)
    rare.add([0.0005] * 400)
    assert rare.outcome == "undecided" and rare.upper == math.inf, "what refuted the worst case refuted every PASS"
    dear = CostTest(0.001, 0.0003, 0.003)
    dear.add([0.02] * 30)
    assert (dear.outcome, dear.estimate) == ("fail", pytest.approx(0.02)) and dear.lower > 0.001
    known = CostTest(0.001, 0.0003, 0.0012)
    known.add([0.0013])
    assert known.outcome == "undecided", "it passed before the first request by a worst case that does not hold"


def test_costs_above_the_worst_case_do_not_fail_what_is_cheap_enough_more_often_than_alpha():
    rng, failed = np.random.default_rng(5), 0
    for _ in range(400):
        test = CostTest(1.0, 0.2, 2.0)
        test.add(
            np.where(rng.random(300) < 0.05, 10.0, 0.5 / 0.95)
        )  # the mean is the bound, one in twenty is 5 x worst
        failed += test.outcome == "fail"
    assert failed / 400 <= 0.05


def test_a_pair_that_agrees_needs_fewer_examples_and_a_better_challenger_is_surely_better():
    rng = np.random.default_rng(0)
    champion = (rng.random(600) < 0.8).astype(float)
    same, better, worse = PairedTest(0.05), PairedTest(0.05), PairedTest(0.05)
    same.add(champion, champion)
    better.add(np.maximum(champion, rng.random(600) < 0.5), champion)
    worse.add(champion * (rng.random(600) < 0.7), champion)
    assert (same.outcome, better.outcome, worse.outcome) == ("pass", "pass", "fail")
    assert better.lower > 0 and not same.lower > 0 and not worse.lower > 0
    with pytest.raises(ValueError, match="pair them up"):
        same.add([1.0, 0.0], [1.0])
