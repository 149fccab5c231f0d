"""About how many examples a gate needs to be sure, before and after it has looked at some.

It judges nothing: `leastwise.ladder.gate` does, from what was measured.
"""

from __future__ import annotations

import math

from pydantic import Field

from leastwise.evidence.measurement import Measurement
from leastwise.part import Part
from leastwise.use_case.requirements import SHARES

LOOK = 25  # rows, or units where rows share one: what is asked before the gate is looked at again
P95_SLOW_SHARE = 0.05


class GateNeed(Part):
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
    to_pass = math.log(1 / alpha_pass / 0.7) / _kl(goal, floor)
    to_fail = math.log(1 / alpha_fail / 0.7) / _kl(floor, goal)
    return math.ceil(max(to_pass, to_fail))


def examples_for_p95(alpha_pass: float) -> int:
    """The fewest requests that can show a 95th percentile below its ceiling: none is slower, each worth log(1 / 0.95)."""
    return math.ceil(math.log(1 / alpha_pass / 0.7) / -math.log(1 - P95_SLOW_SHARE))


def expected_examples(
    quality: float, bound: float, margin: float, alpha_pass: float, alpha_fail: float
) -> tuple[int, bool]:
    """About how many 0/1 examples decide a candidate of that true quality, and whether they pass it.

    The log of the evidence against "at most floor" grows by about KL(quality || floor) an example where quality is above
    it, that against "at least bound" by KL(quality || bound) where it is below: Wald's lengths for a bet that has learnt
    the true share. The shorter of the two is how it ends.
    """
    floor, goal = max(bound - margin, 1e-9), min(bound, 1 - 1e-9)
    inf = math.inf
    to_pass = math.log(1 / alpha_pass / 0.7) / _kl(quality, floor) if quality > floor else inf
    to_fail = math.log(1 / alpha_fail / 0.7) / _kl(quality, goal) if quality < goal else inf
    shorter = min(to_pass, to_fail)
    return (10**6 if shorter > 10**6 else math.ceil(shorter)), to_pass <= to_fail


def price_of_splitting(got: Measurement, alpha: float) -> float:
    """How many times the examples that this share's alphas take, beside a gate that had all of `alpha` on each side.

    By Wald's lengths, so about; 1.0 where there is no margin or the alphas are not smaller.
    """
    if got.name not in SHARES or not 0 < got.bound - got.margin < min(got.bound, 1 - 1e-9):
        return 1.0
    split, whole = (
        examples_to_decide(got.bound, got.margin, *pair) for pair in ((got.alpha_pass, got.alpha_fail), (alpha, alpha))
    )
    return max(1.0, split / whole)


def more_to_decide(got: Measurement) -> int | None:
    """About how many more examples would decide a share that is undecided; 0 where its interval has decided it.

    Wald's expected length for a candidate whose true share is the estimate: log(1/alpha) over what one example adds on
    average to the log-likelihood ratio of bound against floor. At the bound and at the floor that is
    `examples_to_decide`. None for latency and cost, without a margin or an estimate, and in the middle third between
    floor and bound, where examples add next to nothing and either verdict is acceptable. It is an upper figure for
    graded scores (units), which vary less. At least a tenth of the whole is named, since Wald leaves out the overshoot.
    """
    floor, goal = got.bound - got.margin, min(got.bound, 1 - 1e-9)
    if got.name not in SHARES or math.isnan(got.estimate) or not 0 < floor < goal:
        return None
    if got.lower >= floor or got.upper < got.bound:
        return 0
    if abs(got.estimate - (floor + goal) / 2) < got.margin / 6:
        return None
    gain = _kl(got.estimate, floor) - _kl(got.estimate, goal)
    alpha = got.alpha_pass if gain > 0 else got.alpha_fail
    whole = math.ceil(math.log(1 / alpha / 0.7) / abs(gain))
    return max(whole - got.n, math.ceil(whole / 10))


def _kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, nats; 0 < q < 1."""
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)
