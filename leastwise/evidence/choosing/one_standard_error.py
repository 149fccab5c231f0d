"""The cheapest variant within one standard error of the best (Breiman, Friedman, Olshen and Stone, CART, 1984, 3.4.3).

All variants are scored on the same rows, so the standard error is that of the paired difference to the best: rows that
are hard for both do not hide what tells two variants apart. What is lost on a row is lost for that pair alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leastwise.evidence.betting import FloatArray


@dataclass(frozen=True)
class Variant:
    """Scores in [0, 1] of the rows in their order, NaN where the infrastructure lost one, and dollars a request."""

    scores: Sequence[float]
    usd: float

    @property
    def mean(self) -> float:
        """The mean of what was scored; NaN where nothing was."""
        known = np.asarray(self.scores, dtype=float)
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else math.nan


@dataclass(frozen=True)
class Difference:
    """How much better the first of two is on the rows that both have: mean, its standard error, and how many rows."""

    mean: float
    error: float
    n: int


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The paired difference of two variants' scores, `first` minus `second`.

    The error is infinite with fewer than two rows in common: nothing is known then.
    """
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    apart = apart[~np.isnan(apart)]
    if len(apart) < 2:
        return Difference(float(apart.mean()) if len(apart) else 0.0, math.inf, len(apart))
    return Difference(float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(len(apart))), len(apart))


def best_of(variants: Sequence[Variant]) -> int:
    """The place of the highest mean; of equals the cheaper, then the earlier."""
    return min(range(len(variants)), key=lambda at: (_descending(variants[at].mean), variants[at].usd, at))


def cheapest_within_one_error(variants: Sequence[Variant]) -> int:
    """The place of the cheapest variant that is at most one paired standard error worse than the best.

    Of equals in dollars the better, then the earlier. Whatever has no score is out; with no score at all it is the
    first.
    """
    best = best_of(variants)
    near = [best]
    for at, each in enumerate(variants):
        if at == best or math.isnan(each.mean):
            continue
        behind = paired(variants[best].scores, each.scores)
        if math.isfinite(behind.error) and behind.mean <= behind.error:
            near.append(at)
    return min(near, key=lambda at: (variants[at].usd, _descending(variants[at].mean), at))


def interval(scores: Sequence[float], z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a mean of scores in [0, 1] (1927), about 95%; (0, 1) without scores.

    It looks once and is for reading: the gate alone says what is sure.
    """
    known: FloatArray = np.asarray(scores, dtype=float)
    known = known[~np.isnan(known)]
    n = len(known)
    if n == 0:
        return (0.0, 1.0)
    p, spread = float(known.mean()), z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return (max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def _descending(mean: float) -> float:
    return math.inf if math.isnan(mean) else -mean
