"""What scores answers: by the task's metric, or by a judge; and how many may be missing.

It asks no judge (see `leastwise.evaluating.judge_scorer`) and tests nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from leastwise.answering.answerer import Outage
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.metrics import Score
from leastwise.metrics.grades import Grades
from leastwise.metrics.task_metric import metric_of
from leastwise.use_case.task import Task

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.metrics.answer import Answer


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

    grades: Grades | None = None
    usd_paid = 0.0

    def __init__(self, task: Task) -> None:
        self._score = metric_of(task)

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """As `Scorer.score`."""
        wants = rows["label"].tolist() if is_labelled else [None] * len(rows)
        return [None if a.text is None else self._score(a.text, want) for a, want in zip(answers, wants, strict=True)]

    def figures(self) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}


def check_lost(what: str, lost: int, rows: int) -> None:
    """Outage where the infrastructure lost more than 1% (and more than one) of the dev rows an offer is weighed by."""
    if lost > max(1.0, MAX_LOST_SHARE * rows):
        raise Outage(f"{what} could not be weighed: {lost} of {rows} dev rows were lost to the infrastructure")
