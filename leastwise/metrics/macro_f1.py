"""F1 averaged over labels, so that rare ones count as much as frequent ones. Reported; the gate does not test it.

Macro-F1 is no mean over examples but a ratio of sums a label, so the sequential tests of `leastwise.evidence` say
nothing of it; a rare label that must not fail wants a requirement of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def macro_f1(answers: Sequence[str | None], expected: Sequence[str]) -> float:
    """Mean F1 over the labels that were expected, 0..1; None is an answer that means no label.

    A label that was answered but never expected lowers the F1 of those it was given instead of, and has none of its own
    (the scikit-learn default averages over it too). Raises ValueError for no rows or columns of unequal length.
    """
    if len(answers) != len(expected) or not expected:
        raise ValueError(
            f"{len(answers)} answers to {len(expected)} expected labels: give one of each a row, at least one"
        )
    right = Counter(want for got, want in zip(answers, expected, strict=True) if got == want)
    due, said = Counter(expected), Counter(answers)
    return sum(2 * right[label] / (due[label] + said[label]) for label in due) / len(due)
