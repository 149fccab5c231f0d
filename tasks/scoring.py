"""What one answer scores under the use case's task: which metric a kind has, and how an expected answer is written.

It asks no judge (see `tasks.judging`) and tests nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from leastwise import metrics
from leastwise.errors import BadInput
from leastwise.metrics.exact_match import words
from leastwise.task import Extraction, FreeText, Task
from tasks.schema_adherence import adherence_of, parsed

if TYPE_CHECKING:
    import pandas as pd

    from tasks.answering import Answer

Score = metrics.Score


@dataclass(frozen=True)
class Grades:
    """Grades of the same answers by people and by the judge, each in 0..1: what the judge's error is known from."""

    ids: tuple[str, ...]
    human: tuple[float, ...]
    judge: tuple[float, ...]

    @property
    def mean_error(self) -> float:
        """What people gave beyond the judge, on average."""
        return float(np.mean(self.human) - np.mean(self.judge))


class Scorer(Protocol):
    """Scores answers; `grades` is set where quality is a judge's grade that has to be corrected."""

    @property
    def grades(self) -> Grades | None:
        """The grades a judge's error is known from."""
        ...

    @property
    def usd_paid(self) -> float:
        """Dollars paid for scoring so far."""
        ...

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """One score a row in the order of the rows; None where the infrastructure lost the answer or its grade."""
        ...

    def figures(self) -> dict[str, float]:
        """What is reported of the scoring itself."""
        ...


class ExactScorer:
    """Scores by a formula: nothing is asked, nothing is paid."""

    grades = None
    usd_paid = 0.0

    def __init__(self, task: Task) -> None:
        self._score = metric_of(task)

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """As `Scorer.score`."""
        wants = rows["label"] if is_labelled else [None] * len(rows)
        return [None if a.text is None else self._score(a.text, want) for a, want in zip(answers, wants, strict=True)]

    def figures(self) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}


def metric_of(task: Task) -> Callable[[str, str | None], Score]:
    """The score of an answer given the expected one (as `expected_text` writes it; None: an input to decline).

    Free text that a judge grades has quality 0 here: its grade takes the place of that.
    """
    if task.kind == "extraction":
        return _record_metric(task)
    if task.kind == "free_text":
        return _text_metric(task)
    return lambda answer, expected: metrics.exact_label(task, answer, expected)


def _record_metric(task: Extraction) -> Callable[[str, str | None], Score]:
    adheres = adherence_of(task.json_schema)

    def score(answer: str, expected: str | None) -> Score:
        right = metrics.field_f1(parsed(answer), json.loads(expected)) if expected is not None else 0.0
        return Score(quality=right, adherence=adheres(answer), declined=0.0)

    return score


def _text_metric(task: FreeText) -> Callable[[str, str | None], Score]:
    compare = {"token_f1": metrics.token_f1, "exact_match": metrics.exact_match}.get(task.metric)
    decline = words(task.decline_label) if task.decline_label else None

    def score(answer: str, expected: str | None) -> Score:
        right = compare(answer, json.loads(expected)) if compare and expected is not None else 0.0
        in_format = 0 < len(answer.split()) <= task.max_words
        return Score(quality=right, adherence=float(in_format), declined=float(words(answer) == decline))

    return score


def agree(task: Task, texts: Sequence[str]) -> float:
    """Share of pairs of repeated answers to one input that say the same (see `leastwise.metrics.self_consistency`)."""
    if task.kind == "classification":
        return metrics.self_consistency([metrics.normalize(task, text) or text for text in texts])
    if task.kind == "extraction":
        return metrics.self_consistency([_canonical(text) for text in texts])
    return metrics.self_consistency([tuple(words(text)) for text in texts])


def _canonical(text: str) -> str:
    record = parsed(text)
    return text if record is None else json.dumps(record, sort_keys=True)


def expected_texts(task: Task, labels: pd.Series[Any], source: str) -> list[str]:
    """Every expected answer as one string; BadInput names the row whose answer the task does not allow.

    Extraction: a record or its JSON, which must keep to the schema. Free text: one text, or a list (or its JSON) any of which is right.
    """
    if task.kind == "classification":
        return list(labels)
    write = _written_record(task) if task.kind == "extraction" else _written_texts
    written = []
    for row, label in enumerate(labels, 1):
        try:
            written.append(write(label))
        except ValueError as error:
            raise BadInput(f"{source}: row {row}: {error}; correct the row") from None
    return written


def _written_record(task: Extraction) -> Callable[[Any], str]:
    adheres = adherence_of(task.json_schema)

    def write(label: Any) -> str:
        record = parsed(label) if isinstance(label, str) else _without_absent(label)
        text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "))
        if not adheres(text):
            raise ValueError(f"the expected record {text[:80]} does not keep to task.json_schema")
        return text

    return write


def _without_absent(value: Any) -> Any:
    """A record as a table gives it back, without the fields that only other rows have (they come back as null)."""
    if isinstance(value, dict):
        return {name: _without_absent(each) for name, each in value.items() if each is not None}
    if isinstance(value, (list, np.ndarray)):
        return [_without_absent(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _written_texts(label: Any) -> str:
    texts = _listed(label)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"the expected answer {str(label)[:80]!r} is neither a text nor a list of texts")
    return json.dumps(texts, ensure_ascii=False)


def _listed(label: Any) -> list[Any]:
    """One text, several, or several as JSON (the only way a CSV can hold them) as a list."""
    if not isinstance(label, str):
        return list(label)
    several = parsed(label) if label.lstrip().startswith("[") else None
    return several if isinstance(several, list) and all(isinstance(text, str) for text in several) else [label]
