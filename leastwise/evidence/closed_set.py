"""Is the mean over one finite set of examples good enough, known before all of it is drawn? (`population: this_set`)

It says nothing of future traffic: the verdict is the full set's, with probability 1 - alpha until every example is
drawn and with certainty then. Guarantees otherwise as in `leastwise.evidence`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leastwise.errors import BadInput
from leastwise.evidence.betting import TICKS, FloatArray, kelly_odds
from leastwise.evidence.bounded_mean import BoundedMeanTest
from leastwise.evidence.scores import check_lost, in_range
from leastwise.use_case.requirements import Better


class ClosedSetTest(BoundedMeanTest):
    """Is the mean of all `size` scores in [0, 1] as good as `bound`? Scores come in a random (seeded) order.

    Drawing without replacement, the next score's mean under "the set's mean is m" is what is left of size * m over
    what is left of the set; betting against that (Waudby-Smith and Ramdas, arXiv 2006.04347; 2010.09686, section on
    sampling without replacement) on the Kelly grid gives the same kind of interval, which closes on the mean as the
    set runs out. `margin` may be 0, since the drawn-out set always decides.
    """

    def __init__(
        self,
        size: int,
        bound: float,
        margin: float = 0.0,
        alpha_pass: float = 0.05,
        alpha_fail: float = 0.05,
        better: Better = "higher",
    ) -> None:
        if size < 1 or not 0 <= bound <= 1:
            raise BadInput(f"size {size} must be at least 1 and bound {bound} within [0, 1], the range of the scores")
        self.size = size
        super().__init__(bound, margin, alpha_pass, alpha_fail, better, None)

    def add(self, scores: ArrayLike) -> None:
        """Take one score or any array of them, in order; more than `size` in all raises ValueError."""
        values = in_range(scores, 0.0, 1.0)
        self._check_size(values.size)
        super().add(values)

    def add_lost(self, count: int = 1) -> None:
        """Take examples the infrastructure lost: worst scores on the way to PASS, best ones on the way to FAIL."""
        check_lost(count)
        self._check_size(count)
        super().add_lost(count)

    def _check_size(self, more: int) -> None:
        drawn = self.n + self.lost + more
        if drawn > self.size:
            raise ValueError(f"{drawn} scores from a closed set of {self.size}: each example counts once")

    def _check_margin(self) -> None:
        if not 0 <= self.margin < 1:
            raise BadInput(f"margin {self.margin} of a closed set must be at least 0 and below 1")

    def _gather(self, floor: float, goal: float) -> tuple[_Draws, _Draws]:
        size = self.size
        return (
            _Draws(size, floor, self.alpha_pass, lambda total: total / size >= floor),
            _Draws(size, 1 - goal, self.alpha_fail, lambda total: (size - total) / size < goal),
        )


class _Draws:
    """Evidence that the mean of a set of `size` is above `null` (at least `null` once `surely` says so of the total).

    Like `leastwise.evidence.betting.Evidence`, but the bound is worked out over all draws again whenever it is asked
    for.
    """

    def __init__(self, size: int, null: float, alpha: float, surely: Callable[[FloatArray], NDArray[np.bool_]]) -> None:
        self._size, self._null, self._surely = size, null, surely
        self._threshold = -np.log(alpha)
        self._odds = kelly_odds(null) - 1
        self._draws = np.empty(0)
        self._growth = np.zeros(self._odds.size)
        self._reached: tuple[int, float] = (0, 0.0)
        self.rejected = False

    def add(self, scores: FloatArray) -> int | None:
        """Take scores (shape n, in [0, 1]); the index of the one that first rejected the null, if it is among them."""
        before = self._draws
        self._draws = np.concatenate([before, scores])
        if self.rejected or not scores.size:
            return None
        totals = float(before.sum()) + np.cumsum(scores)
        log_e, self._growth = self._capital(scores, before, self._null, self._growth)
        crossed = np.flatnonzero((log_e >= self._threshold) | self._surely(totals))
        self.rejected = bool(crossed.size)
        return int(crossed[0]) if crossed.size else None

    @property
    def lower(self) -> float:
        """The largest mean surely exceeded so far, or what the drawn total alone comes to; never falls."""
        drawn, reached = self._reached
        if drawn < self._draws.size:
            reached = max(self._inverted(), float(self._draws.sum()) / self._size)
            self._reached = (self._draws.size, reached)
        return reached

    def _inverted(self) -> float:
        low, high = 0, TICKS
        start = np.zeros(self._odds.size)
        while high - low > 1:
            middle = (low + high) // 2
            log_e, _ = self._capital(self._draws, np.empty(0), middle / TICKS, start)
            low, high = (middle, high) if log_e.max() >= self._threshold else (low, middle)
        return low / TICKS

    def _capital(
        self, scores: FloatArray, before: FloatArray, null: float, growth: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        total = float(before.sum())
        left = self._size - before.size - np.arange(scores.size)
        mean_left = (self._size * null - (total + np.cumsum(scores) - scores)) / left
        fair = np.clip(mean_left, 0.0, 1.0)
        steps = np.log1p(scores * self._odds[:, None]) - np.log1p(fair * self._odds[:, None])
        sums = np.cumsum(np.column_stack([growth, steps]), axis=1)[:, 1:]
        top = sums.max(axis=0)
        log_e: FloatArray = top + np.log(np.exp(sums - top).mean(axis=0))
        # A total that is already more than the whole set's under the null refutes it outright.
        log_e[np.maximum.accumulate(mean_left < -1e-9)] = np.inf
        return log_e, sums[:, -1]
