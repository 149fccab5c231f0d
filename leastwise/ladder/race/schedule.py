"""Whose turn it is among the tries of a stage, and how long that turn is: the look budget.

A stage looks for one try that passes, and pays until it has found it. Of independent searches that can be left and
gone on with, least is paid on average by always going on with the smallest index (Gittins 1979, "Bandit processes and
dynamic allocation indices"; Gittins, Glazebrook and Weber 2011, chapter 2): the least, over all budgets h, of the
examples that h is expected to take over the chance of a PASS within h. What is not known of a try (its true share) is
drawn from a flat prior, weighed by what was seen; how long a try of that share takes, and how it ends, is Wald's length
(`leastwise.evidence.examples_needed`). So the index is about right, and nothing but money rests on it: each try's test
holds at every look, whenever it is left or gone on with.

Two things hold back a change of tries, both chosen by simulation (`python -m benchmarks.race`; docs/gate.md says why):
a turn lasts for a quarter of the examples that a try exactly at its bound needs, later ones half as long as all before
them; and a try is only left for one whose index is at most half of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from leastwise.evidence.betting import POINT_SHARE, FloatArray
from leastwise.evidence.examples_needed import LOOK

LEAST_TURN = 2 * LOOK
BELOW_FLOOR = 0.3  # how far below the floor the prior reaches
SHARES_TRIED = 60  # true shares between there and BEST
BEST = 0.995
OVERSHOOT = 0.1  # of its whole length a try is thought to need at least, since Wald's lengths leave out the overshoot
NEVER = math.inf


@dataclass(frozen=True)
class Pace:
    """How long a turn is and what it takes to end it; the defaults were chosen by simulation.

    `turn_share`: of the examples that decide a try exactly at its bound. `growth`: of the examples a try has had, how
    long its next turn is at least. `reluctance`: how many times smaller the index of another try has to be.
    """

    turn_share: float = 0.25
    growth: float = 0.5
    reluctance: float = 2.0


PACE = Pace()


@dataclass(frozen=True)
class ShareTest:
    """The test of one share of a try: `right` is the sum of its `n` scores, `size` the examples there are."""

    bound: float
    margin: float
    alpha_pass: float
    alpha_fail: float
    size: int
    n: int = 0
    right: float = 0.0
    is_open: bool = True


@dataclass(frozen=True)
class Standing:
    """How far a try is: `examples` it has had; `can_pass` until one of its requirements has failed.

    `usd` is what a request of it may cost; 0 where that is not known, and then examples alone count.
    """

    shares: tuple[ShareTest, ...] = ()
    examples: int = 0
    can_pass: bool = True
    usd: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether one of its shares is undecided: only then it may be parked."""
        return any(each.is_open for each in self.shares)

    def as_begun(self, usd: float) -> Standing:
        """How any try of the same stage stands before its first example."""
        return Standing(tuple(replace(each, n=0, right=0.0, is_open=True) for each in self.shares), usd=usd)


@dataclass(frozen=True)
class Turn:
    """Who is measured next, by its place in the list; `had`: its examples so far, None where it goes on to its end."""

    entrant: int
    had: int | None = None
    pace: Pace = PACE

    def until(self, shares: Sequence[ShareTest]) -> float:
        """The examples of a try with these tests at which its turn is over."""
        if self.had is None:
            return math.inf
        at_bound = max(map(_to_pass_at_bound, shares), default=math.inf)
        return self.had + turn_length(at_bound, self.had, self.pace)

    def is_over(self, standing: Standing) -> bool:
        """Whether the one whose turn it is, standing so, is to be parked."""
        if self.had is None or not standing.is_open:
            return False
        return not standing.can_pass or standing.examples >= self.until(standing.shares)


def next_turn(standings: Sequence[Standing], last: int | None = None, pace: Pace = PACE) -> Turn:
    """Whose turn it is of the tries that are not at their end, at least one, in the order listed.

    Those that have had no example begin in that order. `last` had the turn before and is left only for a good reason.
    """
    begun = next((each for each in standings if each.examples), None)
    fresh = next((at for at, each in enumerate(standings) if not each.examples), None)
    if len(standings) == 1:
        return Turn(0)
    if begun is None:
        return Turn(0, 0, pace)
    weights = _weights(standings)
    paid_for_pass = {
        at: weights[at] * examples_for_pass(each if each.examples else begun.as_begun(each.usd))
        for at, each in enumerate(standings)
        if each.examples or at == fresh
    }
    if last is not None:
        paid_for_pass[last] /= pace.reluctance
    entrant = min(paid_for_pass, key=lambda at: (paid_for_pass[at], at != last, at))
    if paid_for_pass[entrant] == NEVER:
        return Turn(entrant)
    return Turn(entrant, standings[entrant].examples, pace)


def turn_length(at_bound: float, had: int, pace: Pace = PACE) -> float:
    """The look budget of a try that `had` so many examples, in whole looks; `at_bound`: what one at its bound needs."""
    longest = max(LEAST_TURN, pace.turn_share * at_bound, pace.growth * had)
    return LOOK * math.ceil(longest / LOOK) if math.isfinite(longest) else math.inf


def examples_for_pass(standing: Standing) -> float:
    """The index: examples for each PASS that going on with a try is expected to bring, added up over its open shares.

    NEVER where it cannot pass any more; nothing where no share is open, for such a try is all but decided.
    """
    if not standing.can_pass:
        return NEVER
    return sum(_index(each) for each in standing.shares if each.is_open)


def _weights(standings: Sequence[Standing]) -> list[float]:
    """Dollars of an example, where those of every try are known; else each counts alike."""
    usd = [each.usd for each in standings]
    return usd if all(each > 0 for each in usd) else [1.0] * len(usd)


@lru_cache(maxsize=100_000)
def _index(test: ShareTest) -> float:
    lengths, passes = _lengths(test)
    left = max(test.size - test.n, 1)
    to_go = np.maximum(lengths - test.n, np.maximum(OVERSHOOT * lengths, LOOK))
    passes, to_go = passes & (to_go <= left), np.minimum(to_go, left)
    order = np.argsort(to_go)
    budgets, chances = to_go[order], _posterior(test)[order]
    paid = np.cumsum(chances * budgets) + budgets * (1 - np.cumsum(chances))  # E[min(T, h)]
    passed = np.cumsum(chances * passes[order])
    with np.errstate(divide="ignore", over="ignore"):
        best = float(np.min(np.where(passed > 0, paid / passed, NEVER)))
    return best if math.isfinite(best) else NEVER


def _shares(test: ShareTest) -> FloatArray:
    """The true shares that are thought possible, each as likely as another before the first example."""
    lowest = max(test.bound - test.margin - BELOW_FLOOR, 0.02)
    return np.linspace(min(lowest, BEST / 2), BEST, SHARES_TRIED)


def _posterior(test: ShareTest) -> FloatArray:
    shares = _shares(test)
    log_likelihood = test.right * np.log(shares) + (test.n - test.right) * np.log1p(-shares)
    weights = np.exp(log_likelihood - log_likelihood.max())
    posterior: FloatArray = weights / weights.sum()
    return posterior


def _lengths(test: ShareTest) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Wald's length of a try of each possible share, and whether it passes then."""
    shares, floor, bound = _shares(test), test.bound - test.margin, min(test.bound, 1 - 1e-9)
    with np.errstate(divide="ignore"):
        to_pass = np.where(shares > floor, _needed(test.alpha_pass) / _kl(shares, max(floor, 1e-9)), NEVER)
        to_fail = np.where(shares < bound, _needed(test.alpha_fail) / _kl(shares, bound), NEVER)
    return np.minimum(np.minimum(to_pass, to_fail), 1e9), to_pass <= to_fail


def _to_pass_at_bound(test: ShareTest) -> float:
    floor, bound = max(test.bound - test.margin, 1e-9), min(test.bound, 1 - 1e-9)
    gain = float(_kl(np.array([bound]), floor)[0]) if bound > floor else 0.0
    return _needed(test.alpha_pass) / gain if gain > 0 else float(test.size)


def _needed(alpha: float) -> float:
    return math.log(1 / alpha / POINT_SHARE)


def _kl(shares: FloatArray, null: float) -> FloatArray:
    """Kullback-Leibler divergence of coins from one coin, nats; all strictly between 0 and 1."""
    gain: FloatArray = shares * np.log(shares / null) + (1 - shares) * np.log((1 - shares) / (1 - null))
    return np.maximum(gain, 0.0)
