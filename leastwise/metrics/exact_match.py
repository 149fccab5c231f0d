"""Is a free answer one of the expected ones, but for case, articles, punctuation and blanks?

It knows English articles only and does not say how near a wrong answer is (see `leastwise.metrics.token_f1`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """1 where the answer equals one of the `expected`, else 0 (SQuAD 1.1: Rajpurkar et al. 2016, section 6.1).

    Raises ValueError without an expected answer: that is no row to score.
    """
    return float(words(answer) in [words(each) for each in required(expected)])


def words(text: str) -> list[str]:
    """The words of a text as SQuAD compares them: lower case, without punctuation and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def required(expected: Sequence[str]) -> Sequence[str]:
    """The expected answers; ValueError where there is none."""
    if not expected:
        raise ValueError("no expected answer: a row without one cannot be scored; leave it out")
    return expected
