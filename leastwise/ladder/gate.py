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
from leastwise.part import Result
from leastwise.use_case.requirements import Requirement

GateOutcome = Literal["PASS", "FAIL", "UNDECIDED", "ERROR"]


class Evaluation(Result):
    """What was measured of a candidate: every metric, and the spend."""

    stage: str
    candidate: str = Field(description="Key of the candidate.")
    gate_hash: str = Field(description="Hash of the gate rows and their order.")
    measurements: dict[str, Measurement]
    usd_spent: float = Field(0.0, ge=0)
    error: str | None = Field(None, description="Why the evaluation could not be finished, in words.")
    parked: str = Field("", description="Why its measuring was left while undecided, in words; empty: it was not left.")
    finding: str = Field("", description="What most wrong answers have in common and what helps; empty: nothing.")


class RequirementVerdict(Result):
    """The verdict on one requirement and why."""

    name: str
    outcome: GateOutcome
    reason: str


class Verdict(Result):
    """The verdict on a candidate."""

    outcome: GateOutcome
    reason: str
    requirements: tuple[RequirementVerdict, ...]

    def named(self, outcome: GateOutcome) -> tuple[str, ...]:
        """Names of the requirements with that outcome."""
        return tuple(each.name for each in self.requirements if each.outcome == outcome)


def judge(evaluation: Evaluation, requirements: Sequence[Requirement]) -> Verdict:
    """Judge a logged evaluation (rule 3): ERROR if any requirement is in error, FAIL if any fails, PASS if all pass.

    A metric that is missing, NaN, unscored or has lost more than 1% of its examples is ERROR: never PASS, and never a
    reason to climb (rule 4). What was parked before a metric was measured is UNDECIDED: evidence of nothing.
    """
    each = tuple(_judge_one(evaluation, requirement) for requirement in requirements)
    if evaluation.error:
        return Verdict(outcome="ERROR", reason=evaluation.error, requirements=each)
    if not each:
        return Verdict(outcome="ERROR", reason="there is no requirement to judge by", requirements=each)
    outcome = next((o for o in _PRECEDENCE if any(v.outcome == o for v in each)), "PASS")
    reasons = [v.reason for v in each if v.outcome == outcome]
    if evaluation.finding and outcome in ("FAIL", "UNDECIDED"):
        reasons.append(evaluation.finding)
    if evaluation.parked and outcome == "UNDECIDED":
        reasons.insert(0, evaluation.parked)
    reason = "; ".join(reasons)
    return Verdict(outcome=outcome, reason=reason, requirements=each)


_PRECEDENCE: tuple[GateOutcome, ...] = ("ERROR", "FAIL", "UNDECIDED")


def _judge_one(evaluation: Evaluation, requirement: Requirement) -> RequirementVerdict:
    measurement = evaluation.measurements.get(requirement.name)
    if measurement is None:
        failed_elsewhere = any(_is_failed(m) for m in evaluation.measurements.values())
        outcome: GateOutcome = "UNDECIDED" if failed_elsewhere or evaluation.parked else "ERROR"
        why = "was not measured"
        if failed_elsewhere or evaluation.parked:
            why = f"not measured: {'another requirement had failed' if failed_elsewhere else 'it was parked before'}"
        return RequirementVerdict(name=requirement.name, outcome=outcome, reason=f"{requirement.name} {why}")
    problem = _problem(measurement, requirement)
    if problem:
        return RequirementVerdict(name=requirement.name, outcome="ERROR", reason=f"{requirement.name} {problem}")
    outcome = _side(measurement.lower, measurement.upper, requirement)
    return RequirementVerdict(
        name=requirement.name, outcome=outcome, reason=_describe(measurement, requirement, outcome)
    )


def _is_failed(measurement: Measurement) -> bool:
    requirement = Requirement(name=measurement.name, bound=measurement.bound, margin=measurement.margin)
    return (
        _problem(measurement, requirement) is None
        and _side(measurement.lower, measurement.upper, requirement) == "FAIL"
    )


def _problem(measurement: Measurement, requirement: Requirement) -> str | None:
    if math.isnan(measurement.estimate) or math.isnan(measurement.lower) or math.isnan(measurement.upper):
        return "is not a number"
    if (measurement.bound, measurement.margin) != (requirement.bound, requirement.margin):
        tested = f"{measurement.bound:g} ± {measurement.margin:g}"
        return f"was measured against {tested}, not {requirement.bound:g} ± {requirement.margin:g}"
    if measurement.n == 0 and measurement.lower != measurement.upper:
        return "has no scored example"
    rows = measurement.rows or measurement.n
    if measurement.n and measurement.lost > MAX_LOST_SHARE * rows:
        return f"lost {measurement.lost} of {rows} examples to the infrastructure (at most {MAX_LOST_SHARE:.0%})"
    return None


def _side(lower: float, upper: float, requirement: Requirement) -> GateOutcome:
    if requirement.better == "higher":
        return "PASS" if lower >= requirement.limit else "FAIL" if upper < requirement.bound else "UNDECIDED"
    return "PASS" if upper <= requirement.limit else "FAIL" if lower > requirement.bound else "UNDECIDED"


def _describe(measurement: Measurement, requirement: Requirement, outcome: GateOutcome) -> str:
    """One requirement's verdict in words, the tolerance spelled out."""
    sign, worse = ("≥", "<") if requirement.better == "higher" else ("≤", ">")
    tolerance = f"wanted {sign} {_number(requirement.bound)}, tolerance {_number(requirement.margin)}"
    estimate = f"{requirement.name} {_number(measurement.estimate)}"
    if outcome == "PASS":
        return f"{estimate}, surely {sign} {_number(requirement.limit)} ({tolerance}, n={measurement.n})"
    if outcome == "FAIL":
        return f"{estimate} {worse} {_number(requirement.bound)} ({tolerance}, n={measurement.n})"
    interval = f"[{_number(measurement.lower)}, {_number(measurement.upper)}]"
    return f"{estimate} in {interval} is not decided ({tolerance}, n={measurement.n})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def plain_outcome(evaluation: Evaluation, requirements: Sequence[Requirement]) -> GateOutcome:
    """Where UNDECIDED is resolved by `estimate` (rule 5): does the plain estimate meet every bound?"""
    verdict = judge(evaluation, requirements)
    if verdict.outcome != "UNDECIDED":
        return verdict.outcome
    return "PASS" if all(_meets(evaluation.measurements[r.name].estimate, r) for r in requirements) else "FAIL"


def _meets(estimate: float, requirement: Requirement) -> bool:
    return estimate >= requirement.bound if requirement.better == "higher" else estimate <= requirement.bound
