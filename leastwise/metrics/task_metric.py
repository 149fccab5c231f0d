"""Which metric a task has: what one answer scores under it, and whether two answers say the same.

It asks no judge and tests nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from leastwise.metrics.exact_label import exact_label, normalize
from leastwise.metrics.exact_match import exact_match, words
from leastwise.metrics.field_f1 import field_f1
from leastwise.metrics.schema_adherence import adherence_of, parsed
from leastwise.metrics.score import Score
from leastwise.metrics.self_consistency import self_consistency
from leastwise.metrics.token_f1 import token_f1
from leastwise.use_case.task import Extraction, FreeText, Task


def metric_of(task: Task) -> Callable[[str, str | None], Score]:
    """The score of an answer given the expected one (as `expected_text` writes it; None: an input to decline).

    Free text that a judge grades has quality 0 here: its grade takes the place of that.
    """
    if task.kind == "extraction":
        return _record_metric(task)
    if task.kind == "free_text":
        return _text_metric(task)
    return lambda answer, expected: exact_label(task, answer, expected)


def _record_metric(task: Extraction) -> Callable[[str, str | None], Score]:
    adheres = adherence_of(task.json_schema)

    def score(answer: str, expected: str | None) -> Score:
        right = field_f1(parsed(answer), json.loads(expected)) if expected is not None else 0.0
        return Score(quality=right, adherence=adheres(answer), declined=0.0)

    return score


def _text_metric(task: FreeText) -> Callable[[str, str | None], Score]:
    compare = {"token_f1": token_f1, "exact_match": exact_match}.get(task.metric)
    decline = words(task.decline_label) if task.decline_label else None

    def score(answer: str, expected: str | None) -> Score:
        right = compare(answer, json.loads(expected)) if compare and expected is not None else 0.0
        in_format = 0 < len(answer.split()) <= task.max_words
        return Score(quality=right, adherence=float(in_format), declined=float(words(answer) == decline))

    return score


def is_right_or_wrong(task: Task) -> bool:
    """Whether an answer is right or wrong under the task's metric, and nothing between."""
    return task.kind == "classification" or (task.kind == "free_text" and task.metric == "exact_match")


def agree(task: Task, texts: Sequence[str]) -> float:
    """Share of pairs of repeated answers to one input that say the same (see `leastwise.metrics.self_consistency`)."""
    if task.kind == "classification":
        return self_consistency([normalize(task, text) or text for text in texts])
    if task.kind == "extraction":
        return self_consistency([_canonical(text) for text in texts])
    return self_consistency([tuple(words(text)) for text in texts])


def _canonical(text: str) -> str:
    record = parsed(text)
    return text if record is None else json.dumps(record, sort_keys=True)
