"""About how many examples a gate needs to be sure, before and after it has looked at some.

It judges nothing: `leastwise.ladder.gate` does, from what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from leastwise.evidence.betting import POINT_SHARE
from leastwise.evidence.measurement import Measurement
from leastwise.evidence.quantile import P95
from leastwise.part import Result
from leastwise.use_case.requirements import SHARES

LOOK = 25  # rows, or units where rows share one: what is asked before the gate is looked at again
MARGINS = (0.05, 0.08, 0.1, 0.12, 0.15, 0.2)  # of a share, that are offered in turn
MOST_EXAMPLES = 10**6  # more are named as this many


class GateNeed(Result):
    """About how many gate examples decide one requirement, where a candidate is exactly as good as asked."""

    requirement: str
    examples: int
    rows: int = Field(description="Rows at hand for it.")

    @property
    def short(self) -> int:
        """Rows to add."""
        return max(0, self.examples - self.rows)


def examples_to_decide(bound: float, margin: float, alpha_pass: float, alpha_fail: float) -> int:
    """About how many 0/1 examples a gate needs, the larger of the two ways to be sure.

    Wald 1945 (Sequential tests of statistical hypotheses, section 4.3), without its overshoot: a candidate exactly at
    the bound passes after log(1/alpha_pass) / KL(bound || floor) examples, one exactly at the floor fails after
    log(1/alpha_fail) / KL(floor || bound). The gate backs its likelier guess with 0.7 of the capital, which adds
    log(1/0.7). Better or worse candidates need fewer, one between bound and floor more.
    """
    floor, goal = bound - margin, min(bound, 1 - 1e-9)
    to_pass = _needed(alpha_pass) / _kl(goal, floor)
    to_fail = _needed(alpha_fail) / _kl(floor, goal)
    return math.ceil(max(to_pass, to_fail))


def examples_for_p95(alpha_pass: float) -> int:
    """The fewest requests that can show a 95th percentile below its ceiling: none slower, each worth log(1 / 0.95)."""
    return math.ceil(_needed(alpha_pass) / -math.log(P95))


@dataclass(frozen=True, order=True)
class ExpectedLength:
    """About how many examples decide a candidate, and whether they are expected to pass it; in order of length."""

    examples: int
    passes: bool


def expected_examples(
    quality: float, bound: float, margin: float, alpha_pass: float, alpha_fail: float
) -> ExpectedLength:
    """About how many 0/1 examples decide a candidate of that true quality, and whether they pass it.

    The log of the evidence against "at most floor" grows by about KL(quality || floor) an example where quality is
    above it, that against "at least bound" by KL(quality || bound) where it is below: Wald's lengths for a bet that has
    learnt the true share. The shorter of the two is how it ends.
    """
    floor, goal = max(bound - margin, 1e-9), min(bound, 1 - 1e-9)
    to_pass = _needed(alpha_pass) / _kl(quality, floor) if quality > floor else math.inf
    to_fail = _needed(alpha_fail) / _kl(quality, goal) if quality < goal else math.inf
    shorter = min(to_pass, to_fail)
    examples = MOST_EXAMPLES if shorter > MOST_EXAMPLES else math.ceil(shorter)
    return ExpectedLength(examples, to_pass <= to_fail)


def price_of_splitting(measurement: Measurement, alpha: float) -> float:
    """How many times the examples that this share's alphas take, beside a gate that had all of `alpha` on each side.

    By Wald's lengths, so about; 1.0 where there is no margin or the alphas are not smaller.
    """
    bound, margin = measurement.bound, measurement.margin
    if measurement.name not in SHARES or not 0 < bound - margin < min(bound, 1 - 1e-9):
        return 1.0
    split = examples_to_decide(bound, margin, measurement.alpha_pass, measurement.alpha_fail)
    return max(1.0, split / examples_to_decide(bound, margin, alpha, alpha))


def more_to_decide(measurement: Measurement) -> int | None:
    """About how many more examples would decide a share that is undecided; 0 where its interval has decided it.

    Wald's expected length for a candidate whose true share is the estimate: log(1/alpha) over what one example adds on
    average to the log-likelihood ratio of bound against floor. At the bound and at the floor that is
    `examples_to_decide`. None for latency and cost, without a margin or an estimate, and in the middle third between
    floor and bound, where examples add next to nothing and either verdict is acceptable. It is an upper figure for
    graded scores (units), which vary less. At least a tenth of the whole is named, since Wald leaves out the overshoot.
    """
    floor, goal = measurement.bound - measurement.margin, min(measurement.bound, 1 - 1e-9)
    estimate = measurement.estimate
    if measurement.name not in SHARES or math.isnan(estimate) or not 0 < floor < goal:
        return None
    if measurement.lower >= floor or measurement.upper < measurement.bound:
        return 0
    if abs(estimate - (floor + goal) / 2) < measurement.margin / 6:
        return None
    gain = _kl(estimate, floor) - _kl(estimate, goal)
    alpha = measurement.alpha_pass if gain > 0 else measurement.alpha_fail
    whole = math.ceil(_needed(alpha) / abs(gain))
    return max(whole - measurement.n, math.ceil(whole / 10))


def _needed(alpha: float) -> float:
    """Log of the capital that decides, for the point alternative that backs POINT_SHARE of it, nats."""
    return math.log(1 / alpha / POINT_SHARE)


def _kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, nats; 0 < q < 1."""
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)
