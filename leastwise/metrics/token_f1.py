"""How far do the words of a free answer overlap with those of an expected one? Their order does not count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leastwise.metrics.exact_match import required, words


def token_f1(answer: str, expected: Sequence[str]) -> float:
    """F1 of the answer's words against the best of the `expected`, 0..1.

    SQuAD 1.1: Rajpurkar et al. 2016, section 6.1.

    Two texts without a word (an answer that is rightly empty) score 1. Raises ValueError without an expected answer.
    """
    return max(_f1(words(answer), words(each)) for each in required(expected))


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
