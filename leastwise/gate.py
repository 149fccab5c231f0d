"""The gate: requirement by requirement PASS, FAIL or UNDECIDED, from an evaluation as it was logged.

It measures nothing and decides nothing about the next stage. The verdict is a pure function of the logged interval,
bound and margin, so that anybody can redo it from MLflow.

Guarantee (the tests are in `leastwise.sequential`): over the whole ladder a candidate at or beyond `floor` of some
requirement passes with probability <= alpha, because each of the K candidates that may be judged on a gate set spends
alpha/K; a candidate must pass every requirement, so there is no split over requirements. In one stage a candidate that
meets every bound fails with probability <= alpha, split over the requirements that are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RequirementName = Literal[
    "quality", "adherence", "p95_latency_ms", "usd_per_1k_requests", "ood_decline", "shift_quality", "general_ability"
]
SHARES: frozenset[str] = frozenset({"quality", "adherence", "ood_decline", "shift_quality", "general_ability"})
Better = Literal["higher", "lower"]
Outcome = Literal["PASS", "FAIL", "UNDECIDED", "ERROR"]

MAX_LOST_SHARE = 0.01


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Requirement(_Frozen):
    """A bound a candidate must meet and the tolerance below it."""

    name: str
    bound: float
    margin: float = Field(ge=0)

    @property
    def better(self) -> Better:
        """Which direction is good: shares are better higher, milliseconds and dollars lower."""
        return "higher" if self.name in SHARES else "lower"

    @property
    def limit(self) -> float:
        """`floor` where higher is better, `ceiling` where lower is: surely on the good side of it is PASS."""
        return self.bound - self.margin if self.better == "higher" else self.bound + self.margin


class Measurement(_Frozen):
    """One metric of one candidate, with an interval valid at whatever moment the test stopped."""

    name: str
    estimate: float
    lower: float
    upper: float
    n: int = Field(ge=0, description="Examples behind it; units where rows share one.")
    rows: int = Field(0, ge=0, description="Rows scored, where several make one example; 0 where each is one.")
    lost: int = Field(0, ge=0, description="Rows the infrastructure lost after all retries.")
    bound: float
    margin: float
    alpha_pass: float = Field(gt=0, lt=1)
    alpha_fail: float = Field(gt=0, lt=1)


class Evaluation(_Frozen):
    """What was measured of a candidate: every metric, and the spend."""

    stage: str
    candidate: str = Field(description="Key of the candidate.")
    gate_hash: str = Field(description="Hash of the gate rows and their order.")
    measurements: dict[str, Measurement]
    usd_spent: float = Field(0.0, ge=0)
    error: str | None = Field(None, description="Why the evaluation could not be finished, in words.")


class RequirementVerdict(_Frozen):
    """The verdict on one requirement and why."""

    name: str
    outcome: Outcome
    reason: str


class Verdict(_Frozen):
    """The verdict on a candidate."""

    outcome: Outcome
    reason: str
    requirements: tuple[RequirementVerdict, ...]

    def named(self, outcome: Outcome) -> tuple[str, ...]:
        """Names of the requirements with that outcome."""
        return tuple(each.name for each in self.requirements if each.outcome == outcome)


def judge(evaluation: Evaluation, requirements: Sequence[Requirement]) -> Verdict:
    """Judge a logged evaluation: ERROR if any requirement is in error, FAIL if any fails, PASS if all pass.

    A metric that is missing, NaN, unscored or has lost more than 1% of its examples is ERROR: never PASS, and never a
    reason to climb.
    """
    each = tuple(_judge_one(evaluation, requirement) for requirement in requirements)
    if evaluation.error:
        return Verdict(outcome="ERROR", reason=evaluation.error, requirements=each)
    if not each:
        return Verdict(outcome="ERROR", reason="there is no requirement to judge by", requirements=each)
    outcome = next((o for o in _PRECEDENCE if any(v.outcome == o for v in each)), "PASS")
    reason = "; ".join(v.reason for v in each if v.outcome == outcome)
    return Verdict(outcome=outcome, reason=reason, requirements=each)


_PRECEDENCE: tuple[Outcome, ...] = ("ERROR", "FAIL", "UNDECIDED")


def _judge_one(evaluation: Evaluation, wanted: Requirement) -> RequirementVerdict:
    got = evaluation.measurements.get(wanted.name)
    if got is None:
        failed_elsewhere = any(_is_failed(m) for m in evaluation.measurements.values())
        outcome: Outcome = "UNDECIDED" if failed_elsewhere else "ERROR"
        why = "not measured: another requirement had failed" if failed_elsewhere else "was not measured"
        return RequirementVerdict(name=wanted.name, outcome=outcome, reason=f"{wanted.name} {why}")
    problem = _problem(got, wanted)
    if problem:
        return RequirementVerdict(name=wanted.name, outcome="ERROR", reason=f"{wanted.name} {problem}")
    outcome = _side(got.lower, got.upper, wanted)
    return RequirementVerdict(name=wanted.name, outcome=outcome, reason=describe(got, wanted, outcome))


def _is_failed(got: Measurement) -> bool:
    requirement = Requirement(name=got.name, bound=got.bound, margin=got.margin)
    return _problem(got, requirement) is None and _side(got.lower, got.upper, requirement) == "FAIL"


def _problem(got: Measurement, wanted: Requirement) -> str | None:
    if math.isnan(got.estimate) or math.isnan(got.lower) or math.isnan(got.upper):
        return "is not a number"
    if (got.bound, got.margin) != (wanted.bound, wanted.margin):
        return f"was measured against {got.bound:g} ± {got.margin:g}, not {wanted.bound:g} ± {wanted.margin:g}"
    if got.n == 0 and got.lower != got.upper:
        return "has no scored example"
    rows = got.rows or got.n
    if got.n and got.lost > MAX_LOST_SHARE * rows:
        return f"lost {got.lost} of {rows} examples to the infrastructure (at most {MAX_LOST_SHARE:.0%})"
    return None


def _side(lower: float, upper: float, wanted: Requirement) -> Outcome:
    if wanted.better == "higher":
        return "PASS" if lower >= wanted.limit else "FAIL" if upper < wanted.bound else "UNDECIDED"
    return "PASS" if upper <= wanted.limit else "FAIL" if lower > wanted.bound else "UNDECIDED"


def describe(got: Measurement, wanted: Requirement, outcome: Outcome) -> str:
    """One requirement's verdict in words, the tolerance spelled out."""
    sign, worse = ("≥", "<") if wanted.better == "higher" else ("≤", ">")
    tolerance = f"wanted {sign} {_number(wanted.bound)}, tolerance {_number(wanted.margin)}"
    estimate = f"{wanted.name} {_number(got.estimate)}"
    if outcome == "PASS":
        return f"{estimate}, surely {sign} {_number(wanted.limit)} ({tolerance}, n={got.n})"
    if outcome == "FAIL":
        return f"{estimate} {worse} {_number(wanted.bound)} ({tolerance}, n={got.n})"
    return f"{estimate} in [{_number(got.lower)}, {_number(got.upper)}] is not decided ({tolerance}, n={got.n})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def plain_outcome(evaluation: Evaluation, requirements: Sequence[Requirement]) -> Outcome:
    """Where UNDECIDED is resolved by `estimate`: does the plain estimate meet every bound?"""
    verdict = judge(evaluation, requirements)
    if verdict.outcome != "UNDECIDED":
        return verdict.outcome
    return "PASS" if all(_meets(evaluation.measurements[r.name].estimate, r) for r in requirements) else "FAIL"


def _meets(estimate: float, wanted: Requirement) -> bool:
    return estimate >= wanted.bound if wanted.better == "higher" else estimate <= wanted.bound
