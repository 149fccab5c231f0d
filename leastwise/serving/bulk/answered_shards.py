"""A shard answered and written in one step: a target never has half of one, and what is there is never asked again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Outage
from leastwise.evaluating.scorer import ExactScorer
from leastwise.serving.bulk.answering_rows import BulkAnswerer
from leastwise.serving.bulk.shards import Plan, Shard
from leastwise.serving.live import TOO_LONG
from leastwise.stores import storage
from leastwise.stores.tables import table_files

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.metrics.answer import Answer
    from leastwise.use_case import UseCase


@dataclass(frozen=True)
class Answered:
    """What a shard came to. `usd`: what its answers cost, bought now or before; `seconds`: what answering it took,
    0 where it was there.
    """

    number: int
    rows: int
    unreadable: int
    scored: int
    score: float
    usd: float
    seconds: float = 0.0


def answered(plan: Plan, shard: Shard, answerer: BulkAnswerer | None) -> Answered:
    """Answer a shard and write it; what was written before stays as it is, and needs nobody who answers.

    Outage where answers were lost: nothing is written, what did come is in the store, and a rerun asks for the rest.
    """
    uri = plan.answered(shard)
    if storage.exists(uri):
        return _sum(shard, table_files.read_table(uri))
    assert answerer is not None, "opened wherever a shard is missing"
    rows = table_files.read_table(plan.asked(shard))
    answers, seconds = answerer.answer(rows)
    lost = [each.error or "lost" for each in answers if each.text is None and each.finish_reason != TOO_LONG]
    if lost:
        raise Outage(f"shard {shard.number}: {len(lost)} of {len(answers)} answers were lost ({lost[0][:300]})")
    table = _table(rows, answers, answerer.production.use_case, plan.version)
    table_files.write_table(table, uri)
    return _sum(shard, table, seconds)


def _table(rows: pd.DataFrame, answers: Sequence[Answer], use_case: UseCase, version: str) -> pd.DataFrame:
    """The columns of an endpoint's log where they mean the same: `predicted_label` never passes for an expected one."""
    import pandas as pd

    told: dict[str, list[object]] = {
        "id": rows["id"].tolist(),
        "text": rows["text"].tolist(),
        "answer": [each.text for each in answers],
        "predicted_label": [each.label for each in answers],
        "confidence": [each.confidence for each in answers],
        "usd": [each.usd for each in answers],
        "version": [version] * len(answers),
        "error": [each.error for each in answers],
        "expected": rows["label"].tolist(),
        "score": list(_scores(rows, answers, use_case)),
    }
    texts = ("answer", "predicted_label", "error", "expected")  # one type in every shard, whatever is missing in it
    return pd.DataFrame(told).astype(
        dict.fromkeys(texts, "string") | dict.fromkeys(("confidence", "usd", "score"), "float64")
    )


def _scores(rows: pd.DataFrame, answers: Sequence[Answer], use_case: UseCase) -> list[float]:
    """What each answer scores by the task's metric, 0 for one that could not be read; NaN where nothing is expected."""
    if rows["label"].isna().all():
        return [math.nan] * len(rows)
    given = [at for at, expected in enumerate(rows["label"].notna()) if expected]
    scores = ExactScorer(use_case.task).score(rows.iloc[given], [answers[at] for at in given])
    by_row = {at: 0.0 if score is None else score.quality for at, score in zip(given, scores, strict=True)}
    return [by_row.get(at, math.nan) for at in range(len(rows))]


def _sum(shard: Shard, table: pd.DataFrame, seconds: float = 0.0) -> Answered:
    scores = table["score"].dropna()
    return Answered(
        number=shard.number,
        rows=len(table),
        unreadable=int(table["error"].notna().sum()),
        scored=len(scores),
        score=float(scores.sum()),
        usd=float(table["usd"].sum()),
        seconds=seconds,
    )
