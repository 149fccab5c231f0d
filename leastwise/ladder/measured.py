"""What was measured of a candidate, with everything behind it: totals, one record a row, the intervals look by look.

It measures nothing (see `leastwise.evaluating.evaluation`); the record keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from leastwise.ladder.gate import Evaluation
from leastwise.metrics.grades import Grades

EXAM = "general_ability"  # the set of general tasks, which are no requests
TRAFFIC = "traffic"  # the set of replayed requests without expected answers, whose score is their adherence


class ExampleRow(TypedDict):
    """One answered row; `score` is None where the infrastructure lost the answer, `usd_paid` 0 where it was stored.

    `adherence` only where it was scored, `judged` only where a judge graded, `scope` only where a guard did, `kind`
    only where `data.kind_column` names one, `timed` only where its latency entered the test of p95 (None there: the
    request was lost), `answered_by` only where the response named its model.
    """

    id: str
    input: str
    expected: str | None
    answer: str | None
    score: float | None
    adherence: NotRequired[float]
    judged: NotRequired[float]
    scope: NotRequired[float]
    kind: NotRequired[str]
    unmetered: NotRequired[bool]
    timed: NotRequired[bool]
    answered_by: NotRequired[str]
    latency_ms: float | None
    usd: float
    usd_paid: float
    from_store: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    error: str | None
    set: str
    unit: object


@dataclass(frozen=True)
class Interval:
    """A requirement's interval at one look."""

    requirement: str
    n: int
    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Measured:
    """An evaluation, the totals behind it and one record a row; `grades` where a judge's grades were corrected."""

    evaluation: Evaluation
    totals: dict[str, float] = field(default_factory=dict)
    rows: Sequence[ExampleRow] = ()
    grades: Grades | None = None
    intervals: Sequence[Interval] = ()
