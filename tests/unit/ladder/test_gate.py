"""The gate both ways: surely good enough passes, surely not fails, and no evidence is neither (rules 3 and 4)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.measurement import Measurement
from leastwise.ladder.gate import Evaluation, judge, plain_outcome
from leastwise.use_case.requirements import Requirement

QUALITY = Requirement(name="quality", bound=0.9, margin=0.05)
LATENCY = Requirement(name="p95_latency_ms", bound=800, margin=200)
NAN = math.nan


def measured(wanted: Requirement, lower: float, upper: float, **changes: float) -> Measurement:
    fields = {"estimate": (lower + upper) / 2, "n": 200, "bound": wanted.bound, "margin": wanted.margin}
    return Measurement(name=wanted.name, lower=lower, upper=upper, alpha_pass=0.01, alpha_fail=0.01, **fields | changes)


def evaluation(*measurements: Measurement, error: str | None = None) -> Evaluation:
    by_name = {m.name: m for m in measurements}
    return Evaluation(stage="prompt", candidate="c", gate_hash="g", measurements=by_name, error=error)


@pytest.mark.parametrize(
    ("wanted", "lower", "upper", "outcome"),
    [
        (QUALITY, 0.85, 1.0, "PASS"),  # exactly at the floor
        (QUALITY, 0.8499, 1.0, "UNDECIDED"),
        (QUALITY, 0.5, 0.8999, "FAIL"),
        (QUALITY, 0.5, 0.9, "UNDECIDED"),  # at the bound it is as good as asked
        (QUALITY, 0.86, 0.88, "PASS"),  # both hold between floor and bound: PASS is asked first
        (LATENCY, 0, 1000, "PASS"),  # exactly at the ceiling
        (LATENCY, 0, 1000.1, "UNDECIDED"),
        (LATENCY, 800.1, 5000, "FAIL"),
        (LATENCY, 800, 5000, "UNDECIDED"),
        (LATENCY, 850, 950, "PASS"),
    ],
)
def test_a_requirement_is_judged_by_its_interval_in_its_own_direction(
    wanted: Requirement, lower: float, upper: float, outcome: str
) -> None:
    verdict = judge(evaluation(measured(wanted, lower, upper)), [wanted])
    assert (verdict.outcome, verdict.requirements[0].outcome) == (outcome, outcome)
    assert wanted.name in verdict.reason


PASSING, FAILING, OPEN = (0.9, 1.0), (0.1, 0.5), (0.5, 1.0)
QUICK, SLOW = (0.0, 700.0), (2000.0, 4000.0)


@pytest.mark.parametrize(
    ("quality", "latency", "outcome"),
    [
        (PASSING, QUICK, "PASS"),
        (PASSING, SLOW, "FAIL"),
        (OPEN, QUICK, "UNDECIDED"),
        (OPEN, SLOW, "FAIL"),
        (FAILING, QUICK, "FAIL"),
        ((NAN, NAN), SLOW, "ERROR"),  # no evidence of one outweighs the failure of another
        ((NAN, NAN), QUICK, "ERROR"),
    ],
)
def test_all_must_pass_one_failure_fails_and_an_error_outweighs_both(
    quality: tuple[float, float], latency: tuple[float, float], outcome: str
) -> None:
    logged = evaluation(measured(QUALITY, *quality), measured(LATENCY, *latency))
    assert judge(logged, [QUALITY, LATENCY]).outcome == outcome


@pytest.mark.parametrize("field", ["estimate", "lower", "upper"])
def test_nan_is_never_pass(field: str) -> None:
    good = {"estimate": 0.95, "lower": 0.9, "upper": 1.0}
    got = measured(QUALITY, 0.9, 1.0).model_copy(update=good | {field: NAN})
    assert judge(evaluation(got), [QUALITY]).outcome == "ERROR"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lost": 3}, "lost 3 of 200"),
        ({"n": 0}, "no scored example"),
        ({"bound": 0.8}, "measured against 0.8"),
        ({"margin": 0.1}, "measured against"),
    ],
)
def test_what_is_no_evidence_for_this_requirement_is_an_error_that_says_why(
    changes: dict[str, float], words: str
) -> None:
    verdict = judge(evaluation(measured(QUALITY, 0.9, 1.0, **changes)), [QUALITY])
    assert verdict.outcome == "ERROR"
    assert words in verdict.reason


def test_one_in_a_hundred_may_be_lost() -> None:
    assert judge(evaluation(measured(QUALITY, 0.9, 1.0, lost=2)), [QUALITY]).outcome == "PASS"


def test_a_known_cost_needs_no_example() -> None:
    cost = Requirement(name="usd_per_1k_requests", bound=1, margin=0.1)
    assert judge(evaluation(measured(cost, 0.5, 0.5, n=0)), [cost]).outcome == "PASS"
    assert judge(evaluation(measured(cost, 1.5, 1.5, n=0)), [cost]).outcome == "FAIL"


def test_what_was_not_measured_is_an_error_unless_another_requirement_had_failed() -> None:
    assert judge(evaluation(measured(LATENCY, *QUICK)), [QUALITY, LATENCY]).outcome == "ERROR"
    stopped_early = judge(evaluation(measured(LATENCY, *SLOW)), [QUALITY, LATENCY])
    assert stopped_early.outcome == "FAIL"
    assert stopped_early.named("UNDECIDED") == ("quality",)


def test_an_outage_and_a_gate_without_requirements_are_errors() -> None:
    passing = measured(QUALITY, 0.9, 1.0)
    assert judge(evaluation(passing, error="the server is gone"), [QUALITY]).reason == "the server is gone"
    assert judge(evaluation(passing, error="the server is gone"), [QUALITY]).outcome == "ERROR"
    assert judge(evaluation(passing), []).outcome == "ERROR"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2))
def test_moving_an_interval_up_never_makes_a_share_worse(lower: float, width: float, up: float) -> None:
    rank = {"FAIL": 0, "UNDECIDED": 1, "PASS": 2}
    here, above = ((low, low + width) for low in (lower, lower + up))
    verdicts = [judge(evaluation(measured(QUALITY, *interval)), [QUALITY]).outcome for interval in (here, above)]
    assert rank[verdicts[0]] <= rank[verdicts[1]]


@pytest.mark.parametrize(("estimate", "outcome"), [(0.9, "PASS"), (0.8999, "FAIL")])
def test_the_plain_estimate_resolves_by_the_bound_not_the_floor(estimate: float, outcome: str) -> None:
    assert plain_outcome(evaluation(measured(QUALITY, 0.8, 0.95, estimate=estimate)), [QUALITY]) == outcome


def test_the_plain_estimate_resolves_nothing_but_undecided() -> None:
    assert plain_outcome(evaluation(measured(QUALITY, 0.9, 1.0, estimate=0.1)), [QUALITY]) == "PASS"
    assert plain_outcome(evaluation(measured(QUALITY, NAN, 1.0)), [QUALITY]) == "ERROR"


WORDS = "parked after 75 examples: another try passed"


def test_what_was_parked_is_undecided_whatever_had_not_been_measured_yet_and_says_so() -> None:
    parked = evaluation(measured(QUALITY, *OPEN)).model_copy(update={"parked": WORDS})
    verdict = judge(parked, [QUALITY, LATENCY])
    assert verdict.outcome == "UNDECIDED" and verdict.named("UNDECIDED") == ("quality", "p95_latency_ms")
    assert verdict.reason.startswith(f"{WORDS}; ")
    assert judge(parked.model_copy(update={"parked": ""}), [QUALITY, LATENCY]).outcome == "ERROR"


def test_what_surely_failed_before_it_was_parked_has_failed_and_what_was_lost_is_an_error() -> None:
    failed = evaluation(measured(QUALITY, *OPEN), measured(LATENCY, *SLOW)).model_copy(update={"parked": WORDS})
    assert judge(failed, [QUALITY, LATENCY]).outcome == "FAIL"
    lost = evaluation(measured(QUALITY, *OPEN, lost=9)).model_copy(update={"parked": WORDS})
    assert judge(lost, [QUALITY, LATENCY]).outcome == "ERROR"
