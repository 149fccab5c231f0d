"""How well does a judge agree with people on the same answers? Reported beside every figure a judge gave.

It corrects nothing: `leastwise.evidence.prediction_powered` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """`share` of answers graded alike, and Cohen's `kappa` (1960): how far that is above chance.

    Kappa is 1 at best and 0 by chance; `n` answers were graded by both.
    """

    share: float
    kappa: float
    n: int


def agreement(judge: Sequence[Hashable], human: Sequence[Hashable]) -> Agreement:
    """Agreement over grades of the same answers in the same order; ValueError for none or columns of unequal length.

    Where both give one and the same grade to everything, chance alone would agree as well: kappa is 0.
    """
    if len(judge) != len(human) or not human:
        raise ValueError(
            f"{len(judge)} grades of the judge, {len(human)} of people: give both of each answer, at least one"
        )
    n = len(human)
    share = sum(a == b for a, b in zip(judge, human, strict=True)) / n
    ours, theirs = Counter(judge), Counter(human)
    chance = sum(count * theirs[grade] for grade, count in ours.items()) / n**2
    return Agreement(share, 0.0 if chance == 1 else (share - chance) / (1 - chance), n)
