"""Is a label the right one, exactly? The metric of classification. It does not aggregate."""

from __future__ import annotations

import string

from leastwise.use_case import Part, Task

_EDGES = string.whitespace + string.punctuation


class Score(Part):
    """Scores of one answer, each in 0..1."""

    quality: float
    adherence: float
    declined: float


def exact_label(task: Task, answer: str, expected: str | None) -> Score:
    """Exact label: `quality` after folding case and edge punctuation, `adherence` only for the demanded label as it is.

    `declined` is 1 where the answer is the decline label. `expected` None (an out-of-scope input) scores quality 0.
    """
    label = normalize(task, answer)
    return Score(
        quality=float(expected is not None and label == expected),
        adherence=float(answer.strip() in task.answers),
        declined=float(task.decline_label is not None and label == task.decline_label),
    )


def normalize(task: Task, answer: str) -> str | None:
    """The label an answer means, or None: exact but for case, surrounding blanks and punctuation."""
    folded = answer.strip(_EDGES).casefold()
    return next((label for label in task.answers if label.casefold() == folded), None)
