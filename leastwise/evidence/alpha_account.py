"""How alpha is shared by all the questions that may ever be asked of the same rows, whatever file they lie in.

It keeps no account (see `leastwise.record.alpha_account`) and does not split a share over candidates (see
`leastwise.ladder.alphas`).

**The guarantee.** A draw is counted as one more than the earlier draws on any set that shares at least one row with
its own. Take any questions whose sets share rows two by two: in order of their draws the k-th has a number of at least
k, so their shares sum to at most alpha, however often bounds change, models are retrained, files are saved again, or
rows are added to a set, taken away or given another label. Sets without a row in common have an account each.

Of two draws at the same moment it is enough that one counts the other (`leastwise.record.alpha_account` sees to that):
numbers whose k smallest sum to at least 1 + … + k, for every k, are supermajorized by 1, 2, 3, …, and 1/j² is convex
and falls (Tomić and Weyl; Marshall, Olkin and Arnold, Inequalities, 4.B.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

RowHashes = NDArray[np.uint64]


def share_of_alpha(alpha: float, number: int) -> float:
    """What the `number`-th different question asked of the same rows gets (from 1): 6 / (pi * number)^2 of alpha.

    These sum to alpha (Basel problem), so however often bounds change, models are retrained or levels asked again on
    the same rows, a false PASS stays at most alpha in all. Raises ValueError for a number below 1.
    """
    if number < 1:
        raise ValueError(f"question {number}: questions are counted from 1")
    return alpha * 6 / (math.pi * number) ** 2


def shares_rows(one: RowHashes, other: RowHashes) -> bool:
    """Whether two sets have a row in common; each is sorted and without repetition."""
    small, large = (one, other) if one.size <= other.size else (other, one)
    if not small.size:
        return False
    at = np.searchsorted(large, small)
    return bool(np.any(large[np.minimum(at, large.size - 1)] == small))


def number_of(rows: RowHashes, drawn: Iterable[RowHashes]) -> int:
    """The number of a draw on these rows, from 1; `drawn` has the rows of every other question that has drawn."""
    return 1 + sum(shares_rows(rows, each) for each in drawn)
