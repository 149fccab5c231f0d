"""Is a mean good enough? The tests of scores, of cost, and of a challenger against a champion on the same examples.

It does not know requirements, alphas of a whole ladder or where scores come from. `leastwise.evidence` states what
all these tests guarantee, `leastwise.evidence.betting` how they bet.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from leastwise.errors import BadInput
from leastwise.evidence.betting import Evidence, FloatArray, Recipe
from leastwise.evidence.scores import PRIOR, TestOutcome, above, below, check_levels, check_lost, check_margin, in_range
from leastwise.use_case.requirements import Better


class _OneSided(Protocol):
    """One side's evidence: takes scores, says which one first rejected, keeps a lower bound of their mean."""

    rejected: bool

    @property
    def lower(self) -> float: ...

    def add(self, scores: FloatArray) -> int | None: ...


class BoundedMeanTest:
    """The mean of scores in [low, high], plus a known `offset`, against a bound; the parent of the named tests."""

    def __init__(
        self,
        bound: float,
        margin: float,
        alpha_pass: float,
        alpha_fail: float,
        better: Better,
        graded: bool | None,
        *,
        low: float = 0.0,
        high: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        self.bound, self.margin = bound, margin
        self.alpha_pass, self.alpha_fail, self.better = alpha_pass, alpha_fail, better
        self._check_margin()
        check_levels(bound, alpha_pass, alpha_fail, better)
        self.n = 0
        self.lost = 0
        self._sum = 0.0
        self._low, self._high, self._offset, self._graded = low, high, offset, graded
        self._accept = bound - margin if better == "higher" else bound + margin
        floor, goal = self._unit(self._accept - offset), self._unit(bound - offset)
        self._passing, self._failing = self._gather(floor, goal)
        self.outcome: TestOutcome = "pass" if floor <= 0 else "fail" if goal > 1 else "undecided"

    def add(self, scores: ArrayLike) -> None:
        """Take one score or any array of them, in order; a value outside the range or NaN raises ValueError."""
        values = in_range(scores, self._low, self._high)
        if self._graded is False and bool(np.any((values != self._low) & (values != self._high))):
            raise ValueError("a score that is neither 0 nor 1 came to a test made with graded=False; leave it out")
        self.n += values.size
        self._sum += float(values.sum())
        unit = self._to_unit(values)
        self._take(unit, 1 - unit)

    def add_lost(self, count: int = 1) -> None:
        """Take examples that the infrastructure lost: worst scores on the way to PASS, best ones on the way to FAIL.

        They widen the interval on both sides and do not enter `estimate` or `n`.
        """
        check_lost(count)
        self.lost += count
        self._take(np.zeros(count), np.zeros(count))

    @property
    def estimate(self) -> float:
        """The plain mean of the scores seen; NaN before the first."""
        return self._offset + self._sum / self.n if self.n else math.nan

    @property
    def lower(self) -> float:
        """Below the mean at every look with probability 1 - alpha (of PASS where higher is better, else of FAIL)."""
        if self.better == "higher":
            reached = self._from_unit(self._passing.lower)
            return max(reached, self._accept) if self.outcome == "pass" else min(reached, below(self._accept))
        reached = self._from_unit(1 - self._failing.lower)
        # Once PASS is kept, a later crossing of the bound may stand: PASS is asked first.
        return self._past_bound(reached, max(reached, above(self.bound)), min(reached, self.bound))

    @property
    def upper(self) -> float:
        """Above the mean at every look with probability 1 - alpha (of FAIL where higher is better, else of PASS)."""
        if self.better == "lower":
            reached = self._from_unit(self._passing.lower)
            return min(reached, self._accept) if self.outcome == "pass" else max(reached, above(self._accept))
        reached = self._from_unit(1 - self._failing.lower)
        return self._past_bound(reached, min(reached, below(self.bound)), max(reached, self.bound))

    def _check_margin(self) -> None:
        check_margin(self.margin)

    def _gather(self, floor: float, goal: float) -> tuple[_OneSided, _OneSided]:
        lead, graded = goal - floor, bool(self._graded)
        return (
            Evidence(Recipe(min(max(floor, 0.0), 1.0), lead, self.alpha_pass, PRIOR, graded)),
            Evidence(Recipe(min(max(1 - goal, 0.0), 1.0), lead, self.alpha_fail, PRIOR[::-1], graded)),
        )

    def _past_bound(self, reached: float, failed: float, open_: float) -> float:
        return {"pass": reached, "fail": failed, "undecided": open_}[self.outcome]

    def _take(self, for_pass: FloatArray, for_fail: FloatArray) -> None:
        passed, failed = self._passing.add(for_pass), self._failing.add(for_fail)
        if self.outcome != "undecided":
            return
        if passed is not None and (failed is None or passed <= failed):
            self.outcome = "pass"
        elif failed is not None:
            self.outcome = "fail"

    def _unit(self, value: float) -> float:
        from_worst = value - self._low if self.better == "higher" else self._high - value
        return from_worst / (self._high - self._low)

    def _to_unit(self, values: FloatArray) -> FloatArray:
        from_worst = values - self._low if self.better == "higher" else self._high - values
        return from_worst / (self._high - self._low)

    def _from_unit(self, unit: float) -> float:
        span = unit * (self._high - self._low)
        return self._offset + (self._low + span if self.better == "higher" else self._high - span)


class MeanTest(BoundedMeanTest):
    """Is the mean of scores in [0, 1] as good as `bound`, give or take `margin`?

    Binary scores: 0.7 times a point alternative plus 0.3 times a truncated Beta(9, 1) mixture. From the first score
    strictly between 0 and 1 on, the capital earned so far is moved to bets on a grid of Kelly fractions (2010.09686,
    section on hedged capital), which uses the scores' own variance. The switch is decided by past scores only, so it
    costs nothing in validity. `graded=True` starts on the grid; `graded=False` refuses scores that are not 0 or 1.
    Where lower is better, scores are mirrored (1 - x).
    """

    def __init__(
        self,
        bound: float,
        margin: float,
        alpha_pass: float = 0.05,
        alpha_fail: float = 0.05,
        better: Better = "higher",
        graded: bool | None = None,
    ) -> None:
        super().__init__(bound, margin, alpha_pass, alpha_fail, better, graded)
        if not 0 <= bound <= 1:
            raise BadInput(f"bound {bound} is outside [0, 1], the range of the scores: set it inside")
        if self._unit(self._accept) <= 0:
            raise BadInput(f"bound {bound} with margin {margin} accepts any score at all: set a smaller margin")


_ROUNDING = 1e-9  # of a cost and of its worst case, which are added up in different orders


class CostTest(BoundedMeanTest):
    """Does one request cost at most `bound_usd` on average, give or take `margin_usd`? All figures are USD a request.

    The metered part is a bounded mean: no request can cost more than `worst_case_usd` (from token caps and prices).
    `fixed_usd`, each request's share of what is paid anyway, is known and added to estimate, lower and upper. A fixed
    share above the bound fails, and a worst case within bound + margin passes, before the first request.
    The needed number of requests grows with worst case / bound: set token caps close to what is used.

    A request above the worst case (the server ignored the cap) enters the estimate and the way to FAIL as it is, which
    is sound: bets on a larger mean need costs of at least 0 and no upper limit. It refutes the limit that PASS rests
    on, so from then on there is no PASS and no upper end of the interval.
    """

    def __init__(
        self,
        bound_usd: float,
        margin_usd: float,
        worst_case_usd: float,
        fixed_usd: float = 0.0,
        alpha_pass: float = 0.05,
        alpha_fail: float = 0.05,
    ) -> None:
        if not (0 < worst_case_usd < math.inf and 0 <= fixed_usd < math.inf):
            raise BadInput(f"worst_case_usd {worst_case_usd} must be above 0 and fixed_usd {fixed_usd} at least 0")
        self.worst_case_usd = worst_case_usd
        self.above, self.most = 0, 0.0
        super().__init__(
            bound_usd, margin_usd, alpha_pass, alpha_fail, "lower", True, high=worst_case_usd, offset=fixed_usd
        )

    def add(self, scores: ArrayLike) -> None:
        """Take the dollars of one request or of any array of them, in order; NaN or a negative one raises ValueError.

        `above` counts those above the worst case, `most` is the dearest.
        """
        usd = in_range(scores, 0.0, math.inf)
        within = np.minimum(usd, self.worst_case_usd)
        is_above = usd > self.worst_case_usd * (1 + _ROUNDING)
        self.n += usd.size
        self._sum += float(usd.sum())
        self.above += int(np.count_nonzero(is_above))
        self.most = max(self.most, float(usd.max(initial=0.0)))
        unit = self._to_unit(within)
        self._take(unit, np.where(is_above, usd / self.worst_case_usd, 1 - unit))
        if self.above and self.outcome == "pass":
            self.outcome = "fail" if self._failing.rejected else "undecided"

    @property
    def upper(self) -> float:
        """As `BoundedMeanTest.upper`; infinite once a request has cost more than the worst case."""
        return math.inf if self.above else super().upper


class PairedTest(BoundedMeanTest):
    """Is a challenger at most `margin` worse than the champion on the same examples?

    The mean of challenger - champion, in [-1, 1], on the Kelly grid: pass = surely > -margin (not worse), fail =
    surely < 0. Needs the fewer examples the more often the two agree. Whether the challenger is surely better is in
    the same interval and needs no further alpha: `lower` > 0.
    """

    def __init__(self, margin: float, alpha_pass: float = 0.05, alpha_fail: float = 0.05) -> None:
        super().__init__(0.0, margin, alpha_pass, alpha_fail, "higher", True, low=-1.0)

    def add(self, challenger: ArrayLike, champion: ArrayLike | None = None) -> None:
        """Take both scores, in [0, 1], of the same examples: two numbers or two arrays of equal length."""
        if champion is None:
            raise ValueError("a paired test needs the champion's scores of the same examples beside the challenger's")
        ours, theirs = in_range(challenger, 0.0, 1.0), in_range(champion, 0.0, 1.0)
        if ours.size != theirs.size:
            raise ValueError(f"{ours.size} challenger scores against {theirs.size} champion scores: pair them up")
        super().add(ours - theirs)
