"""A guard at work: a candidate behind an abstention score.

Which score and threshold is right is not decided here (see `leastwise.evaluating.guard_offer`). Distance is known
before the model is asked, so what it declines costs no call; the other scores come with the answer. A declined request
is answered with the decline label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Answerer, PlainAnswerer, Surroundings
from leastwise.evidence.abstention import Guard, ScoreName
from leastwise.metrics.answer import Answer

if TYPE_CHECKING:
    import pandas as pd


def score_of(answer: Answer, score: ScoreName) -> float | None:
    """The score that came with an answer, where it did."""
    return answer.confidence if score == "max_probability" else answer.energy


class GuardedAnswerer(PlainAnswerer):
    """An answerer that declines below a threshold; an answer without a score is let through."""

    def __init__(self, work: Surroundings, inner: Answerer, guard: Guard) -> None:
        decline = work.use_case.task.decline_label
        near = work.near if guard.score == "distance" else None
        assert decline is not None and (near is not None or guard.score != "distance")
        self.behind, self.guard, self.decline, self.near = inner, guard, decline, near
        self.price, self.usd_worst_case = inner.price, inner.usd_worst_case
        self._texts = list(work.gate.rows["text"].head(20)) if near else []

    @cached_property
    def _scoring_ms(self) -> float:
        return self.near.scoring_ms(self._texts) if self.near and self._texts else 0.0

    @property
    def fixed_usd_per_request(self) -> float:
        """That of who is behind it."""
        return self.behind.fixed_usd_per_request

    def figures(self) -> dict[str, float]:
        """Those of who is behind it."""
        return self.behind.figures()

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows, each with its score."""
        return self._answered(self.behind.answer, rows)

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`, the one behind asked once more past what it stores."""
        return self._answered(self.behind.again, rows)

    def _answered(self, ask: Callable[[pd.DataFrame], list[Answer]], rows: pd.DataFrame) -> list[Answer]:
        return self._by_distance(ask, rows) if self.near else [self._judged(answer) for answer in ask(rows)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Latencies over HTTP: of what was asked the model's and the guard's, of what was not the guard's alone."""
        times = [answer.latency_ms for answer in answers]
        untimed = [at for at, took in enumerate(times) if took is None]  # answered in process, or lost
        part = self.behind.timed(rows.iloc[untimed], [answers[at] for at in untimed]) if untimed else []
        for at, took in zip(untimed, part, strict=True):
            times[at] = None if took is None else took + self._scoring_ms
        return times

    def _by_distance(self, ask: Callable[[pd.DataFrame], list[Answer]], rows: pd.DataFrame) -> list[Answer]:
        assert self.near is not None
        scores = self.near.scores(list(rows["text"])).tolist()
        asked = [at for at, score in enumerate(scores) if not self._is_below(score)]
        answers = [Answer(self.decline, self._scoring_ms, 0.0, from_store=True, scope=score) for score in scores]
        for at, answer in zip(asked, ask(rows.iloc[asked]) if asked else [], strict=True):
            took = None if answer.latency_ms is None else answer.latency_ms + self._scoring_ms
            answers[at] = replace(answer, scope=scores[at], latency_ms=took)
        return answers

    def _judged(self, answer: Answer) -> Answer:
        return judged(answer, self.guard, self.decline)

    def _is_below(self, score: float | None) -> bool:
        return score is not None and score < self.guard.below


def judged(answer: Answer, guard: Guard, decline: str) -> Answer:
    """The answer, or where its own score is too low the decline label; without a score it is let through."""
    score = score_of(answer, guard.score)
    declines = answer.text is not None and score is not None and score < guard.below
    return replace(answer, scope=score, text=decline if declines else answer.text)
