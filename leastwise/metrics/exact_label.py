"""Is a label the right one, exactly? The metric of classification. It does not aggregate."""

from __future__ import annotations

import string

from leastwise.metrics.score import Score
from leastwise.use_case.task import Classification

_EDGES = string.whitespace + string.punctuation


def exact_label(task: Classification, answer: str, expected: str | None) -> Score:
    """Exact label: `quality` after folding case and edge punctuation, `adherence` only for the demanded label as it is.

    `declined` is 1 where the answer is the decline label. `expected` None (an out-of-scope input) scores quality 0.
    """
    label = normalize(task, answer)
    return Score(
        quality=float(expected is not None and label == expected),
        adherence=float(answer.strip() in task.answers),
        declined=float(task.decline_label is not None and label == task.decline_label),
    )


def normalize(task: Classification, answer: str) -> str | None:
    """The label an answer means, or None: exact but for case, surrounding blanks and punctuation."""
    folded = answer.strip(_EDGES).casefold()
    return next((label for label in task.answers if label.casefold() == folded), None)
