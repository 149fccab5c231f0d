"""Tests of a requirement that hold at every look: an interval that only narrows, and PASS, FAIL or neither.

They know numbers only: no requirement, budget or model; `leastwise.gate` names them and `tasks.evaluation` feeds them.

**What is guaranteed.** A candidate exactly at the floor (bound - margin; where lower is better, at the ceiling,
bound + margin) or worse passes with probability at most `alpha_pass`, and one at the bound or better fails with
probability at most `alpha_fail`, however often and whenever one looks and stops (Ville's inequality, see
`leastwise.evidence`). Between floor and bound either verdict is acceptable. `lower` and `upper` are each one-sided
at those levels: the mean lies above `lower` with probability 1 - alpha_pass and below `upper` with 1 - alpha_fail.

**How interval and outcome agree.** The interval is the inversion of the very capital that decides: `outcome` is
"pass" exactly when `lower` >= floor, else "fail" exactly when `upper` < bound. Every score is a look of its own, so
neither depends on how scores are grouped into `add` calls (only on their order); batches decide just how many scores
were paid for by the time one asks. The first crossing is kept: after a FAIL, `lower` stays below the floor.

**The price of splitting alpha** grows with log(1/alpha): at bound .90 and floor .85 a test at .05/7 a side needs about
1.6 times the examples of one at .05 (`python -m benchmarks.gate_examples` prints the figures).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from leastwise.bounded_mean import CostTest, MeanTest, PairedTest
from leastwise.closed_set import ClosedSetTest
from leastwise.evidence import FloatArray
from leastwise.quantile import QuantileTest
from leastwise.scores import Better, Outcome, in_range

__all__ = ["Better", "ClosedSetTest", "CostTest", "MeanTest", "Outcome", "PairedTest", "QuantileTest", "unit_means"]


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
