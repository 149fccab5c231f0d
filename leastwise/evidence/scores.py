"""What every sequential test accepts: scores within a range, and a bound, a margin and error levels that make sense.

It does not score answers; that is `leastwise.metrics`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from leastwise.errors import BadInput
from leastwise.evidence.betting import FloatArray

TestOutcome = Literal["pass", "fail", "undecided"]

PRIOR = (9.0, 1.0)
"""Beta of the binary mixture: candidates worth testing tend to do well."""


def in_range(scores: ArrayLike, low: float, high: float) -> FloatArray:
    """The scores as a new flat array; ValueError naming the first that is NaN or outside [low, high]."""
    values = np.array(scores, dtype=np.float64, ndmin=1).ravel()
    fine = (values >= low) & (values <= high)
    if not fine.all():
        at = int(np.argmin(fine))
        raise ValueError(f"score {at} is {values[at]}, outside [{low}, {high}]: an unscored example is no score")
    return values


def check_levels(bound: float, alpha_pass: float, alpha_fail: float, better: str = "higher") -> None:
    """BadInput unless the bound is a number, both levels in (0, 1) and the direction known."""
    if better not in ("higher", "lower"):
        raise BadInput(f"better {better!r}: say 'higher' or 'lower'")
    if not math.isfinite(bound):
        raise BadInput(f"bound {bound} is not a number")
    if not (0 < alpha_pass < 1 and 0 < alpha_fail < 1):
        raise BadInput(f"alpha_pass {alpha_pass} and alpha_fail {alpha_fail} must lie between 0 and 1")


def check_margin(margin: float) -> None:
    """BadInput unless the margin is a number above 0: without room between floor and bound no test ends."""
    if not 0 < margin < math.inf:
        raise BadInput(f"margin {margin}: must be above 0 (0 needs a closed set, population: this_set)")


def check_lost(count: int) -> None:
    """ValueError unless a number of lost examples is not negative."""
    if count < 0:
        raise ValueError(f"{count} lost examples: a count cannot be negative")


def below(value: float) -> float:
    """The next number down: how an interval stays on its side of a limit that was not crossed."""
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    """The next number up."""
    return math.nextafter(value, math.inf)
