"""Is the mean over one finite set of examples good enough, known before all of it is drawn? (`population: this_set`)

It says nothing of future traffic: the verdict is the full set's, with probability 1 - alpha until every example is
drawn and with certainty then. Guarantees otherwise as in `leastwise.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    for: what a draw says of one mean depends on all before it. So ask at ever rarer looks where there are many. Asking
    less often changes no bound, for it is the best of all draws so far either way.
    """

    def __init__(self, size: int, null: float, alpha: float, surely: Callable[[FloatArray], NDArray[np.bool_]]) -> None:
        self._size, self._null, self._surely = size, null, surely
        self._threshold = -np.log(alpha)
        self._odds = kelly_odds(null) - 1
        self._parts: list[FloatArray] = []
        self._drawn, self._total = 0, 0.0
        self._growth = np.zeros(self._odds.size)
        self._reached: tuple[int, float] = (0, 0.0)
        self.rejected = False

    def add(self, scores: FloatArray) -> int | None:
        """Take scores (shape n, in [0, 1]); the index of the one that first rejected the null, if it is among them."""
        drawn, total = self._drawn, self._total
        self._parts.append(scores)
        self._drawn += scores.size
        self._total += float(scores.sum())
        if self.rejected or not scores.size:
            return None
        totals = total + np.cumsum(scores)
        won = np.log1p(scores * self._odds[:, None])
        log_e, self._growth = self._capital(scores, won, _Before(drawn, total, self._growth), self._null)
        crossed = np.flatnonzero((log_e >= self._threshold) | self._surely(totals))
        self.rejected = bool(crossed.size)
        return int(crossed[0]) if crossed.size else None

    @property
    def lower(self) -> float:
        """The largest mean surely exceeded so far, or what the drawn total alone comes to; never falls."""
        drawn, reached = self._reached
        if drawn < self._drawn:
            reached = max(self._inverted(reached), self._total / self._size)
            self._reached = (self._drawn, reached)
        return reached

    def _inverted(self, reached: float) -> float:
        """The largest tick that some draw so far rejects; at least what was `reached`, where the search starts.

        The capital falls with the mean, so it is searched by false position, kept from creeping by bisection.
        """
        scores = np.concatenate(self._parts)
        self._parts = [scores]
        won = np.log1p(scores * self._odds[:, None])

        def ahead(tick: int) -> float:
            return self._peak(scores, won, tick / TICKS) - float(self._threshold)

        low, high = int(reached * TICKS), TICKS
        at_low, at_high = ahead(low), -self._threshold
        if at_low < 0:  # the total alone had reached further than the bets
            low, high = 0, low
            at_low, at_high = ahead(low), at_low
        while high - low > 1:
            middle = _between(low, at_low, high, at_high)
            at_middle = ahead(middle)
            width = high - low
            low, at_low, high, at_high = (
                (middle, at_middle, high, at_high) if at_middle >= 0 else (low, at_low, middle, at_middle)
            )
            if high - low > width // 2 and high - low > 1:
                half = (low + high) // 2
                at_half = ahead(half)
                low, at_low, high, at_high = (
                    (half, at_half, high, at_high) if at_half >= 0 else (low, at_low, half, at_half)
                )
        return low / TICKS

    def _capital(
        self, scores: FloatArray, won: FloatArray, before: _Before, null: float
    ) -> tuple[FloatArray, FloatArray]:
        """Log capital after each of these scores, whose bets `won` that much, and the grid's sums at the end."""
        sums, is_refuted = self._grown(scores, won, before, null)
        log_e = _mixed(sums)
        log_e[is_refuted] = np.inf
        return log_e, sums[:, -1]

    def _peak(self, scores: FloatArray, won: FloatArray, null: float) -> float:
        """The largest log capital after any of these scores, the first ones drawn."""
        sums, is_refuted = self._grown(scores, won, _Before(0, 0.0, np.zeros(self._odds.size)), null)
        if is_refuted.any():
            return math.inf
        top = sums.max(axis=0)
        # A mixture is at most its best part and at least its share of that: only there may the largest one be.
        return float(_mixed(sums[:, top >= top.max() - math.log(self._odds.size)]).max())

    def _grown(
        self, scores: FloatArray, won: FloatArray, before: _Before, null: float
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """The grid's sums after each score, and where the total drawn is already more than the whole set's under the
        null, which refutes it outright.
        """
        left = self._size - before.drawn - np.arange(scores.size)
        mean_left = (self._size * null - (before.total + np.cumsum(scores) - scores)) / left
        fair = np.clip(mean_left, 0.0, 1.0)
        steps = won - np.log1p(fair * self._odds[:, None])
        sums = np.cumsum(np.column_stack([before.growth, steps]), axis=1)[:, 1:]
        return sums, np.maximum.accumulate(mean_left < -1e-9)


def _mixed(sums: FloatArray) -> FloatArray:
    """The log of the mean capital over the grid."""
    top = sums.max(axis=0)
    mixed: FloatArray = top + np.log(np.exp(sums - top).mean(axis=0))
    return mixed


@dataclass(frozen=True)
class _Before:
    """What was drawn before: how many, their total, and the sums on the Kelly grid."""

    drawn: int
    total: float
    growth: FloatArray


def _between(low: int, at_low: float, high: int, at_high: float) -> int:
    """Where a line through both would be 0, strictly between them; half way where it cannot be drawn."""
    if not (np.isfinite(at_low) and np.isfinite(at_high)) or at_low == at_high:
        return (low + high) // 2
    guess = low + round((high - low) * at_low / (at_low - at_high))
    return min(max(guess, low + 1), high - 1)
