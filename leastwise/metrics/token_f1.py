"""How far do the words of a free answer overlap with those of an expected one? Their order does not count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leastwise.metrics.exact_match import required, words


def token_f1(answer: str, expected: Sequence[str]) -> float:
    """F1 of the answer's words against the best of the `expected`, 0..1.

    SQuAD 1.1: Rajpurkar et al. 2016, section 6.1; what a word is, `leastwise.metrics.exact_match.words` says.

    An empty answer is never right. Raises ValueError without an expected answer.
    """
    ours = words(answer)
    return max(_f1(ours, words(each)) for each in required(expected))


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return 0.0
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
