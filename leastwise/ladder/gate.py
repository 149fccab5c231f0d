"""The gate: requirement by requirement PASS, FAIL or UNDECIDED, from an evaluation as it was logged.

It measures nothing and decides nothing about the next stage. The verdict is a pure function of the logged interval,
bound and margin, so that anybody can redo it from MLflow.

Guarantee (the tests are in `leastwise.evidence`): over the whole ladder a candidate at or beyond `floor` of some
requirement passes with probability <= alpha, because each of the K candidates that may be judged on a gate set spends
alpha/K; a candidate must pass every requirement, so there is no split over requirements. In one stage a candidate that
meets every bound fails with probability <= alpha, split over the requirements that are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leastwise.evidence.measurement import MAX_LOST_SHARE, Measurement
from leastwise.part import Part
from leastwise.use_case.requirements import Requirement

GateOutcome = Literal["PASS", "FAIL", "UNDECIDED", "ERROR"]


class Evaluation(Part):
    """What was measured of a candidate: every metric, and the spend."""

    stage: str
    candidate: str = Field(description="Key of the candidate.")
    gate_hash: str = Field(description="Hash of the gate rows and their order.")
    measurements: dict[str, Measurement]
    usd_spent: float = Field(0.0, ge=0)
    error: str | None = Field(None, description="Why the evaluation could not be finished, in words.")


class RequirementVerdict(Part):
    """The verdict on one requirement and why."""

    name: str
    outcome: GateOutcome
    reason: str


class Verdict(Part):
    """The verdict on a candidate."""

    outcome: GateOutcome
    reason: str
    requirements: tuple[RequirementVerdict, ...]

    def named(self, outcome: GateOutcome) -> tuple[str, ...]:
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


_PRECEDENCE: tuple[GateOutcome, ...] = ("ERROR", "FAIL", "UNDECIDED")


def _judge_one(evaluation: Evaluation, wanted: Requirement) -> RequirementVerdict:
    got = evaluation.measurements.get(wanted.name)
    if got is None:
        failed_elsewhere = any(_is_failed(m) for m in evaluation.measurements.values())
        outcome: GateOutcome = "UNDECIDED" if failed_elsewhere else "ERROR"
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


def _side(lower: float, upper: float, wanted: Requirement) -> GateOutcome:
    if wanted.better == "higher":
        return "PASS" if lower >= wanted.limit else "FAIL" if upper < wanted.bound else "UNDECIDED"
    return "PASS" if upper <= wanted.limit else "FAIL" if lower > wanted.bound else "UNDECIDED"


def describe(got: Measurement, wanted: Requirement, outcome: GateOutcome) -> str:
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


def plain_outcome(evaluation: Evaluation, requirements: Sequence[Requirement]) -> GateOutcome:
    """Where UNDECIDED is resolved by `estimate`: does the plain estimate meet every bound?"""
    verdict = judge(evaluation, requirements)
    if verdict.outcome != "UNDECIDED":
        return verdict.outcome
    return "PASS" if all(_meets(evaluation.measurements[r.name].estimate, r) for r in requirements) else "FAIL"


def _meets(estimate: float, wanted: Requirement) -> bool:
    return estimate >= wanted.bound if wanted.better == "higher" else estimate <= wanted.bound
