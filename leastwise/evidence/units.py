"""Rows that share a unit (a conversation, a customer) as one score. It tests nothing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from leastwise.evidence.betting import FloatArray
from leastwise.evidence.scores import in_range


def unit_means(scores: ArrayLike, units: Sequence[Hashable], high: float = 1.0) -> FloatArray:
    """One graded score for each unit: the mean over its rows, units in order of first appearance. Shape (units,).

    Rows of one unit (a conversation, a document, a customer) are not independent, so each unit counts once. The
    estimand becomes unit-weighted, the expected score of a random unit's random row; it differs from the
    request-weighted mean where large units score otherwise than small ones. Hand in complete units: a unit split over
    two calls would count twice. Scores lie in [0, high] (dollars have no upper end: high = inf), and so do their means.
    """
    values = in_range(scores, 0.0, high)
    if values.size != len(units):
        raise ValueError(f"{values.size} scores for {len(units)} unit names: give each row its unit")
    rows: dict[Hashable, list[float]] = {}
    for value, unit in zip(values.tolist(), units, strict=True):
        rows.setdefault(unit, []).append(value)
    return np.array([min(math.fsum(of_unit) / len(of_unit), max(of_unit)) for of_unit in rows.values()])
