"""One-sided evidence that a mean in [0, 1] is above a value: bets whose capital can hardly grow if it is not.

It knows no verdict, bound or direction; `leastwise.evidence` turns two of these into PASS, FAIL or UNDECIDED.

For the null "every score has (conditional) mean at most m", a capital E_t(m) that starts at 1 and is a nonnegative
supermartingale reaches 1/alpha with probability at most alpha, at any time whatsoever (Ville's inequality; Howard,
Ramdas, McAuliffe, Sekhon, arXiv 1810.08240; Waudby-Smith and Ramdas, arXiv 2010.09686). All m that the capital ever
rejects lie below the true mean with probability 1 - alpha: the lower end of a confidence sequence. Every bet here is
a mixture of factors 1 + lambda (x - m) with 0 <= lambda <= 1/m, which is linear in x, so scores need not be binary,
independent or identically distributed; only their mean matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

POINT_SHARE = 0.7
TICKS = 2**30
"""Lower bounds are multiples of 1/TICKS, so that the same scores in other batches give the very same number."""
CHUNK = 65_536
MANY = 1_000


@cache
def _kelly() -> FloatArray:
    from scipy import special  # here: what trains imports this room by way of the ladder, on machines without scipy

    fractions: FloatArray = special.expit(np.linspace(special.logit(0.01), special.logit(0.99), 16))
    return fractions


def point_above(null: float, lead: float) -> float:
    """The simple alternative that most of the capital backs: `lead` above the null, at most half way to 1."""
    return min(null + lead, (1 + null) / 2)


def log_e_binary(
    successes: FloatArray, failures: FloatArray, null: float, point: float, prior: tuple[float, float]
) -> FloatArray:
    """Log capital against "mean <= null" after binary scores, whatever their order.

    0.7 times the likelihood ratio of `point` to `null`, plus 0.3 times its mixture over Beta(prior) truncated to
    (null, 1] (Robbins' method of mixtures; 2010.09686, appendix on binary outcomes). Where the scores are not ahead
    of the null the mixture term, at most 0.3 there, is left out: `betainc` underflows and would reject spuriously.
    Shapes: counts broadcast; needs 0 <= null < point < 1.
    """
    from scipy import special

    a, b = prior
    with np.errstate(divide="ignore", invalid="ignore"):
        base = special.xlogy(successes, null) + special.xlog1py(failures, -null)
        log_e: FloatArray = (
            np.log(POINT_SHARE) + special.xlogy(successes, point) + special.xlog1py(failures, -point) - base
        )
        ahead = successes > null * (successes + failures)
        k, f = successes[ahead], failures[ahead]
        truncation = np.log(special.betaincc(a + k, b + f, null)) - np.log(special.betaincc(a, b, null))
        mixture = special.betaln(a + k, b + f) - special.betaln(a, b) + truncation - base[ahead]
        log_e[ahead] = np.logaddexp(log_e[ahead], np.log(1 - POINT_SHARE) + mixture)
    return log_e


def log_most_binary(successes: FloatArray, failures: FloatArray, null: float) -> FloatArray:
    """The most a bet on more than `null` can have earned: the log likelihood ratio of the observed share. Cheap."""
    from scipy import special

    n = np.maximum(successes + failures, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = special.xlogy(successes, successes / n) + special.xlogy(failures, failures / n)
        most: FloatArray = gain - special.xlogy(successes, null) - special.xlog1py(failures, -null)
    return np.where(successes > null * n, most + 1e-6, 0.0)


def kelly_odds(null: float) -> FloatArray:
    """Odds ratios r > 1, one for each Kelly fraction c = lambda * null of the grid (shape 16).

    1 + lambda (x - m) with lambda = (r - 1) / (1 + m (r - 1)) equals (1 + x (r - 1)) / (1 + m (r - 1)). With r fixed
    (not lambda) the score part does not depend on m: one running sum serves every m, the capital falls with m, and
    the bound is an exact inversion. aGRAPA is left out on purpose: it is a poor bettor for means near 1.
    """
    odds: FloatArray = 1 + _kelly() / (max(null, 1e-6) * (1 - _kelly()))
    return odds


@dataclass(frozen=True)
class Recipe:
    """How one side bets: against "mean <= null", at level `alpha`.

    `lead` is how far above the null the point alternative stands; `prior` the Beta of the binary mixture; `graded`
    whether to bet on the Kelly grid from the first score on.
    """

    null: float
    lead: float
    alpha: float
    prior: tuple[float, float]
    graded: bool

    def log_e_binary(self, successes: FloatArray, failures: FloatArray, null: float) -> FloatArray:
        """Log capital after binary scores against any `null`, the point alternative moving along with it."""
        return log_e_binary(successes, failures, null, point_above(null, self.lead), self.prior)


@dataclass(frozen=True)
class _State:
    """All that matters of the scores so far; `hinge` is the first score that was not binary, None before it."""

    successes: int
    failures: int
    hinge: float | None
    after: int
    sums: FloatArray


@dataclass(frozen=True)
class _BinaryWalk:
    """Counts after each of some consecutive scores, all of them binary so far."""

    recipe: Recipe
    successes: FloatArray
    failures: FloatArray

    def take(self, rows: NDArray[np.intp]) -> _BinaryWalk:
        return replace(self, successes=self.successes[rows], failures=self.failures[rows])

    def log_e(self, null: float) -> FloatArray:
        return self.recipe.log_e_binary(self.successes, self.failures, null)

    def promise(self, null: float) -> FloatArray:
        """At least log_e, and cheap."""
        return log_most_binary(self.successes, self.failures, null)


@dataclass(frozen=True)
class _GradedWalk:
    """Running sums on the Kelly grid (shape 16 x n) after each of some consecutive scores, from the hinge on."""

    recipe: Recipe
    start: _State
    odds: FloatArray
    after: FloatArray
    sums: FloatArray

    def take(self, rows: NDArray[np.intp]) -> _GradedWalk:
        return replace(self, after=self.after[rows], sums=self.sums[:, rows])

    def log_e(self, null: float) -> FloatArray:
        growth = self.sums - self.after * np.log1p(null * (self.odds - 1))[:, None]
        top = growth.max(axis=0)
        grid: FloatArray = top + np.log(np.exp(growth - top).mean(axis=0))
        return self._stake(null) + grid

    def promise(self, null: float) -> FloatArray:
        """At least log_e: the grid's best bet alone."""
        growth: FloatArray = (self.sums - self.after * np.log1p(null * (self.odds - 1))[:, None]).max(axis=0)
        return self._stake(null) + growth + 1e-9

    def _stake(self, null: float) -> float:
        """Log capital brought to the grid: what the binary bet was worth after it met the hinge.

        The bet on the hinge was placed before it was seen and is linear in it, hence the interpolation; moving the
        capital to the grid afterwards only uses the past. So the switch keeps the supermartingale.
        """
        hinge = self.start.hinge
        if hinge is None:
            return 0.0
        k, f = float(self.start.successes), float(self.start.failures)
        won, lost = self.recipe.log_e_binary(np.array([k + 1, k]), np.array([f, f + 1]), null)
        return float(np.logaddexp(np.log(hinge) + won, np.log1p(-hinge) + lost))


_Walk = _BinaryWalk | _GradedWalk


class Evidence:
    """Collects scores in [0, 1] and knows when "mean <= recipe.null" was first rejected, and a lower bound.

    Every single score is a look, so nothing depends on how scores are grouped. The bound is worked out when asked.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.rejected = False
        self._threshold = -np.log(recipe.alpha)
        self._odds = kelly_odds(recipe.null)
        self._decided_to = self._bounded_to = _State(0, 0, None, 0, np.zeros(self._odds.size))
        self._unread: list[FloatArray] = []
        self._ticks = 0

    def add(self, scores: FloatArray) -> int | None:
        """Take scores (shape n, in [0, 1]); the index of the one that first rejected the null, if it is among them."""
        self._unread.append(scores)
        if self.rejected:
            return None
        offset = 0
        for walk, state in self._walks(self._decided_to, scores):
            self._decided_to = state
            crossed = self._rejecting(walk, self.recipe.null)
            if crossed.size:
                self.rejected = True
                return offset + int(crossed[0])
            offset += _length(walk)
        return None

    @property
    def lower(self) -> float:
        """The largest multiple of 1/TICKS rejected at any score so far: never falls, below the mean w.p. 1 - alpha."""
        if self._unread:
            scores = np.concatenate(self._unread)
            self._unread = []
            for walk, state in self._walks(self._bounded_to, scores):
                self._bounded_to = state
                self._raise_bound(walk)
        return self._ticks / TICKS

    def _raise_bound(self, walk: _Walk) -> None:
        # Of many, first the most promising score alone, then what it leaves: a million need few exact evaluations.
        if _length(walk) > MANY:
            best = int(np.argmax(walk.promise((self._ticks + 1) / TICKS)))
            self._ticks = self._invert(walk.take(np.array([best])))
        self._ticks = self._invert(walk)

    def _invert(self, walk: _Walk) -> int:
        """The most ticks that any score of the walk rejects, at least those so far; sheds scores that cannot."""
        low, middle, high = self._ticks, self._ticks + 1, TICKS
        while middle < high:
            rejecting = self._rejecting(walk, middle / TICKS)
            if rejecting.size:
                low, walk = middle, walk.take(rejecting)
            elif low == self._ticks:
                return low
            else:
                high = middle
            middle = (low + high) // 2 if high - low > 1 else high
        return low

    def _rejecting(self, walk: _Walk, null: float) -> NDArray[np.intp]:
        rows = np.flatnonzero(walk.promise(null) >= self._threshold)
        return rows[walk.take(rows).log_e(null) >= self._threshold] if rows.size else rows

    def _walks(self, state: _State, scores: FloatArray) -> Iterator[tuple[_Walk, _State]]:
        if not self.recipe.graded and state.hinge is None:
            graded = np.flatnonzero((scores != 0) & (scores != 1))
            split = int(graded[0]) if graded.size else scores.size
            for first in range(0, split, CHUNK):
                walk, state = self._binary(state, scores[first : min(first + CHUNK, split)])
                yield walk, state
            if split == scores.size:
                return
            state = replace(state, hinge=float(scores[split]))
            yield self._graded(state, state.sums[:, None], np.zeros(1)), state
            scores = scores[split + 1 :]
        for first in range(0, scores.size, CHUNK):
            part = scores[first : first + CHUNK]
            steps = np.log1p(part * (self._odds - 1)[:, None])
            # cumsum adds one by one, so the carried sum makes it blind to where a batch was cut
            sums = np.cumsum(np.column_stack([state.sums, steps]), axis=1)[:, 1:]
            after = state.after + np.arange(1.0, part.size + 1)
            walk_state = replace(state, after=state.after + part.size, sums=sums[:, -1])
            yield self._graded(state, sums, after), walk_state
            state = walk_state

    def _binary(self, state: _State, scores: FloatArray) -> tuple[_Walk, _State]:
        successes = state.successes + np.cumsum(scores)
        failures = state.successes + state.failures + np.arange(1.0, scores.size + 1) - successes
        after = replace(state, successes=int(successes[-1]), failures=int(failures[-1]))
        return _BinaryWalk(self.recipe, successes, failures), after

    def _graded(self, state: _State, sums: FloatArray, after: FloatArray) -> _Walk:
        return _GradedWalk(self.recipe, state, self._odds, after, sums)


def _length(walk: _Walk) -> int:
    return int(walk.successes.size if isinstance(walk, _BinaryWalk) else walk.after.size)
