"""The rows of one look and what came of them: one value an example, one record a row and what records add up to; and
what an evaluation looks at.

It answers nothing and tests nothing (see `leastwise.evaluating.evaluation`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leastwise.evaluating.scorer import Scorer
from leastwise.evidence.betting import FloatArray
from leastwise.evidence.units import unit_means
from leastwise.ladder.measured import TRAFFIC, ExampleRow
from leastwise.metrics import Score
from leastwise.metrics.answer import Answer
from leastwise.rows.gate_rows import unit_numbers, whole_among
from leastwise.rows.question import JudgedRows, Question
from leastwise.rows.tables import KIND, UNIT

if TYPE_CHECKING:
    import pandas as pd

DECLINED = "ood_decline"  # the rows whose score is whether they were declined


@dataclass(frozen=True)
class AnsweredLook:
    """One look; a score is None where the infrastructure lost the answer."""

    rows: pd.DataFrame
    answers: list[Answer]
    scores: list[Score | None]

    @classmethod
    def of(cls, scorer: Scorer, rows: pd.DataFrame, answers: list[Answer], is_labelled: bool = True) -> AnsweredLook:
        """The answers to these rows, scored."""
        return cls(rows, answers, scorer.score(rows, answers, is_labelled))

    @cached_property
    def _units(self) -> npt.NDArray[np.intp]:
        return unit_numbers(self.rows)

    @cached_property
    def whole(self) -> npt.NDArray[np.intp]:
        """Positions of the rows whose unit lost none."""
        return whole_among(self._units, [score is None for score in self.scores])

    @property
    def lost_rows(self) -> int:
        """Rows the infrastructure lost."""
        return sum(score is None for score in self.scores)

    @property
    def scored_rows(self) -> int:
        """Rows with a score."""
        return len(self.rows) - self.lost_rows

    @property
    def unpriced(self) -> int:
        """Answers whose usage the provider does not say: tokens and dollars are the most they can be."""
        return sum(not answer.usage_known for answer in self.answers if answer.text is not None)

    @property
    def lost_units(self) -> int:
        """Units that lost any row."""
        return np.unique(self._units).size - np.unique(self._units[self.whole]).size

    def means(self, value: Callable[[Score, Answer], float]) -> FloatArray:
        """One value for each unit that lost no row."""
        scored = ((self.scores[at], self.answers[at]) for at in self.whole)
        values = [value(score, answer) for score, answer in scored if score is not None]
        return unit_means(values, self._units[self.whole].tolist(), high=math.inf)

    def one_a_unit(self, salt: str) -> list[int]:
        """Positions of one row for each unit that lost none, drawn by a hash so that long units' first rows have no
        lead.
        """
        if UNIT not in self.rows:
            return [int(at) for at in self.whole]
        drawn: dict[int, int] = {}
        ids = self.rows["id"].tolist()
        for at in sorted(self.whole, key=lambda at: _draw(salt, ids[at])):
            drawn.setdefault(int(self._units[at]), int(at))
        return sorted(drawn.values())

    @property
    def metered(self) -> AnsweredLook:
        """This look as cost sees it: a row whose provider did not say what it used is lost."""
        both = zip(self.scores, self.answers, strict=True)
        return replace(self, scores=[score if answer.usage_known else None for score, answer in both])

    def records(
        self, split: str, timed: Mapping[int, float | None] | None = None, tells_adherence: bool = True
    ) -> list[ExampleRow]:
        """One record a row; out-of-scope rows score whether they were declined, those of traffic whether they were
        answered in the demanded format.

        `timed`: the latencies that entered the test, by position, which is what is kept of them. `tells_adherence`:
        not where adherence is judged on other rows.
        """
        columns = [name for name in ("id", "text", "label", UNIT, KIND) if name in self.rows]
        rows = zip(*(self.rows[name].tolist() for name in columns), strict=True)
        records = [self._record(dict(zip(columns, row, strict=True)), at, split) for at, row in enumerate(rows)]
        for record in () if tells_adherence else records:
            record.pop("adherence", None)
        for at, took in (timed or {}).items():
            records[at]["latency_ms"], records[at]["timed"] = took, True
        return records

    def _record(self, row: Mapping[str, Any], at: int, split: str) -> ExampleRow:
        answer, score = self.answers[at], self.scores[at]
        record = ExampleRow(
            id=row["id"],
            input=row["text"],
            expected=None if split in (DECLINED, TRAFFIC) else row["label"],
            answer=answer.text,
            score=None if score is None else score_in(split, score),
            latency_ms=answer.latency_ms,
            usd=answer.usd,
            usd_paid=0.0 if answer.from_store else answer.usd,
            from_store=answer.from_store,
            input_tokens=answer.input_tokens,
            cached_tokens=answer.cached_tokens,
            output_tokens=answer.output_tokens,
            error=answer.error,
            set=split,
            unit=row.get(UNIT),
        )
        if score:
            record["adherence"] = score.adherence
        if score and split == "gate" and score.grade is not None:
            record["judged"] = score.grade
        if not answer.usage_known:
            record["unmetered"] = True
        if answer.answered_by:
            record["answered_by"] = answer.answered_by
        if answer.scope is not None:
            record["scope"] = answer.scope
        if row.get(KIND) is not None:
            record["kind"] = row[KIND]
        return record


def score_in(split: str, score: Score) -> float:
    """What a row of a set scores."""
    return {DECLINED: score.declined, TRAFFIC: score.adherence}.get(split, score.quality)


def _draw(salt: str, row_id: object) -> bytes:
    return hashlib.sha256(f"{salt}:{row_id}".encode()).digest()


class Exam(Scorer, Protocol):
    """General tasks as an evaluation takes them: rows, who answers them, and who scores the answers."""

    @property
    def rows(self) -> pd.DataFrame:
        """One task a row: id, text and label."""
        ...

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What an evaluation asks: the judged rows in the order to use, and tables that may be missing.

    Where `data.unit_by` is set every table has the column `leastwise.rows.tables.UNIT`, and `n` counts units.
    """

    judged: JudgedRows
    out_of_scope: pd.DataFrame | None = None
    shifted: pd.DataFrame | None = None
    paraphrases: pd.DataFrame | None = None
    exam: Exam | None = None
    beside: JudgedRows | None = None  # gate rows, where the judged ones are traffic that cannot be scored

    @classmethod
    def of(cls, question: Question, stage: str, exam: Exam | None = None) -> Inputs:
        """What a stage's candidate is asked under this question."""
        tables = question.tables
        return cls(
            judged=question.judged_rows(stage),
            out_of_scope=tables.get("out_of_scope"),
            shifted=tables.get("shifted"),
            paraphrases=tables.get("paraphrases") if stage != "cache" else None,
            exam=exam,
            beside=question.judged_beside_traffic if stage == "cache" else None,
        )


def why_lost(errors: Sequence[str | None], of: int) -> str:
    """How many requests were lost, and for which reasons; None: its answer came, and no grade."""
    reasons = sorted({error or "the judge gave no grade" for error in errors})
    return f"{len(errors)} of {of} requests were lost to the infrastructure ({'; '.join(reasons)[:300]})"
