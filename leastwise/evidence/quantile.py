"""Is a quantile of latency within its bound? Two tests of shares, and their interval in milliseconds.

It does not measure latency: times are taken over HTTP elsewhere. Guarantees are those of `leastwise.evidence`.
"""

from __future__ import annotations

import math
from bisect import insort

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leastwise.errors import BadInput
from leastwise.evidence.betting import Evidence, FloatArray, Recipe
from leastwise.evidence.scores import PRIOR, TestOutcome, check_levels, check_lost, check_margin, in_range

P95 = 0.95
"""The quantile that the requirement `p95_latency_ms` is about."""


class QuantileTest:
    """Is the `q`-quantile of times at most `bound_ms`, give or take `margin_ms`? All times are in milliseconds.

    PASS when the share slower than bound + margin is surely below 1 - q; FAIL when the share slower than the bound
    is surely above 1 - q. Point alternatives: half and twice the allowed share. `lower` and `upper` are order
    statistics: for any time v, the share slower than v is tested by the same capital, and since counts are monotone
    in v, all v rejected at some look form an interval that is valid for all v at once (2010.09686; Howard and Ramdas,
    arXiv 1906.09714, for quantiles). So "pass" is exactly upper <= bound + margin, and "fail" exactly lower > bound
    (unless PASS came first).
    """

    def __init__(
        self, bound_ms: float, margin_ms: float, q: float = P95, alpha_pass: float = 0.05, alpha_fail: float = 0.05
    ) -> None:
        check_margin(margin_ms)
        check_levels(bound_ms, alpha_pass, alpha_fail)
        if not (bound_ms > 0 and 0 < q < 1):
            raise BadInput(f"bound_ms {bound_ms} must be above 0 and q {q} between 0 and 1")
        self.bound, self.margin, self.q = bound_ms, margin_ms, q
        self.alpha_pass, self.alpha_fail, self.better = alpha_pass, alpha_fail, "lower"
        self.n = 0
        self.lost = 0
        self.outcome: TestOutcome = "undecided"
        fast = Recipe(q, 1 - q, alpha_pass, PRIOR, graded=False)
        slow = Recipe(1 - q, 1 - q, alpha_fail, PRIOR[::-1], graded=False)
        self._passing, self._failing = Evidence(fast), Evidence(slow)
        self._optimistic, self._pessimistic = _OrderedTimes(slow), _OrderedTimes(fast)
        self._seen: list[float] = []

    def add(self, times_ms: ArrayLike) -> None:
        """Take one time or any array of them, in order; NaN or a negative time raises ValueError."""
        times = in_range(times_ms, 0.0, math.inf)
        self.n += times.size
        self._seen.extend(times.tolist())
        self._take(times, times)

    def add_lost(self, count: int = 1) -> None:
        """Take requests the infrastructure lost: infinitely slow on the way to PASS, instant on the way to FAIL."""
        check_lost(count)
        self.lost += count
        self._take(np.full(count, math.inf), np.zeros(count))

    @property
    def estimate(self) -> float:
        """The plain sample quantile (the smallest time with a share q at or below it); NaN before the first."""
        return float(np.quantile(self._seen, self.q, method="inverted_cdf")) if self._seen else math.nan

    @property
    def lower(self) -> float:
        """At most the quantile at every look with probability 1 - alpha_fail; 0 until enough slow requests are in."""
        slowest = self._optimistic.slowest
        if self.outcome == "undecided" or (self.outcome == "pass" and slowest <= self.bound):
            return min(slowest, self.bound)
        return slowest

    @property
    def upper(self) -> float:
        """At least the quantile at every look with probability 1 - alpha_pass; infinite until enough fast ones."""
        reached = self._pessimistic.fastest
        ceiling = self.bound + self.margin
        return min(reached, ceiling) if self.outcome == "pass" else max(reached, math.nextafter(ceiling, math.inf))

    def _take(self, for_pass: FloatArray, for_fail: FloatArray) -> None:
        self._pessimistic.add(for_pass)
        self._optimistic.add(for_fail)
        passed = self._passing.add((for_pass <= self.bound + self.margin).astype(np.float64))
        failed = self._failing.add((for_fail > self.bound).astype(np.float64))
        if self.outcome != "undecided":
            return
        if passed is not None and (failed is None or passed <= failed):
            self.outcome = "pass"
        elif failed is not None:
            self.outcome = "fail"


class _OrderedTimes:
    """Times in order of size, read only when an interval is asked for, and the best limit any look has given."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._sorted: list[float] = []
        self._unread: list[float] = []
        self._fastest, self._slowest = math.inf, 0.0

    def add(self, times: FloatArray) -> None:
        self._unread.extend(times.tolist())

    @property
    def fastest(self) -> float:
        """The smallest time that surely a share above recipe.null does not exceed."""
        self._read()
        return self._fastest

    @property
    def slowest(self) -> float:
        """The largest time that surely a share above recipe.null reaches."""
        self._read()
        return self._slowest

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        looks = np.arange(len(self._sorted) + 1, len(self._sorted) + len(unread) + 1)
        for time, needed in zip(unread, critical_counts(self._recipe, looks).tolist(), strict=True):
            insort(self._sorted, time)
            if needed <= len(self._sorted):
                self._fastest = min(self._fastest, self._sorted[needed - 1])
                self._slowest = max(self._slowest, self._sorted[-needed])


def critical_counts(recipe: Recipe, n: NDArray[np.int_]) -> NDArray[np.int_]:
    """The fewest successes out of each n (same shape) at which the binary capital rejects; n + 1 where none does."""
    low, high = np.zeros_like(n) - 1, n + 1
    while bool(np.any(high - low > 1)):
        middle = np.minimum((low + high) // 2, n)
        log_e = recipe.log_e_binary(middle.astype(np.float64), (n - middle).astype(np.float64), recipe.null)
        reject = (log_e >= -np.log(recipe.alpha)) & (high - low > 1)
        high, low = np.where(reject, middle, high), np.where(~reject & (high - low > 1), middle, low)
    return high
