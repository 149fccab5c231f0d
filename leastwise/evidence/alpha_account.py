"""How a gate set's alpha is shared by all the questions it may ever be asked.

It keeps no account (see `leastwise.record.alpha_account`) and does not split a share over candidates (see
`leastwise.ladder.alphas`).
"""

from __future__ import annotations

import math


def share_of_alpha(alpha: float, number: int) -> float:
    """What the `number`-th different question asked of one gate set gets (from 1): 6 / (pi * number)^2 of alpha.

    These sum to alpha (Basel problem), so however often bounds change, models are retrained or levels asked again on
    the same rows, a false PASS stays at most alpha in all. Raises ValueError for a number below 1.
    """
    if number < 1:
        raise ValueError(f"question {number}: questions are counted from 1")
    return alpha * 6 / (math.pi * number) ** 2
