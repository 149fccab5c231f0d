"""Answers from a column of the rows: what is measured is known beforehand."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from leastwise.answering.answerer import PlainAnswerer
from leastwise.metrics.answer import Answer


@dataclass
class Toy(PlainAnswerer):
    """Answers rightly where `right` is 1, and loses what is in `lost`; it remembers what it was asked."""

    usd_worst_case: float = 0.01
    fixed_usd_per_request: float = 0.0
    lost: frozenset[str] = frozenset()
    lost_when_timed: frozenset[str] = frozenset()
    unmetered: frozenset[str] = frozenset()
    looks: list[list[str]] = field(default_factory=list)
    timed_ids: list[str] = field(default_factory=list)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        self.looks.append(list(rows["id"]))
        return [self._one(row) for row in rows.itertuples()]

    def _one(self, row: Any) -> Answer:
        if row.id in self.lost:
            return Answer(None, None, 0.0, error="connection reset")
        text = {1: "yes", 0: "no", -1: "none"}[row.right]
        return Answer(text, row.ms, row.usd, usage_known=row.id not in self.unmetered)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        self.timed_ids += list(rows["id"])
        both = zip(rows["id"], answers, strict=True)
        return [None if row_id in self.lost_when_timed else answer.latency_ms for row_id, answer in both]
