"""Does the same input get the same answer again? It does not say whether that answer is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def self_consistency(samples: Sequence[Hashable]) -> float:
    """Share of pairs of repeated answers to one input that agree, 0..1.

    Unbiased for the chance that two fresh answers agree, however many samples there are (the share of the commonest
    answer is not: it can only be 1/n or more). Its mean over inputs is a mean of scores that `MeanTest` can hold to a
    bound.
    Raises ValueError for fewer than two samples.
    """
    n = len(samples)
    if n < 2:
        raise ValueError(f"{n} sample of an input: at least two are needed to see whether they agree")
    return sum(count * (count - 1) for count in Counter(samples).values()) / (n * (n - 1))
