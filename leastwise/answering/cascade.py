"""A cascade at work: a cheap candidate answers, and what it is not sure of is asked of the other one as well.

Which threshold is right is not decided here (see `leastwise.evaluating.cascade_offer`). An escalated request costs both
and takes both times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Answerer, PlainAnswerer
from leastwise.metrics.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    Ask = Callable[[pd.DataFrame], list[Answer]]


class CascadeAnswerer(PlainAnswerer):
    """Two answerers behind one threshold; an answer without a confidence escalates, and so does one that was lost."""

    def __init__(self, first: Answerer, then: Answerer, below: float) -> None:
        self.first, self.then, self.below = first, then, below
        self.price = then.price
        self.usd_worst_case = first.usd_worst_case + then.usd_worst_case
        self.fixed_usd_per_request = first.fixed_usd_per_request + then.fixed_usd_per_request
        self.requests = self.escalated = 0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows."""
        answers = self._through(self.first.answer, self.then.answer, rows)
        self.requests += len(answers)
        self.escalated += sum(answer.escalated for answer in answers)
        return answers

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """Both asked once more, past what they store."""
        return self._through(self.first.again, self.then.again, rows)

    def _through(self, ask_first: Ask, ask_then: Ask, rows: pd.DataFrame) -> list[Answer]:
        answers = list(ask_first(rows))
        unsure = [at for at, answer in enumerate(answers) if self._escalates(answer)]
        if unsure:
            for at, answer in zip(unsure, ask_then(rows.iloc[unsure]), strict=True):
                answers[at] = _both(answers[at], answer)
        return answers

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """Latencies over HTTP: the first's for every row, the other's on top where it was asked."""
        first = self.first.answer(rows)  # kept by whoever answers, or quick to say again
        times = self.first.timed(rows, first)
        if len(times) != len(rows):
            return []
        unsure = [at for at, answer in enumerate(first) if self._escalates(answer)]
        if unsure:
            part = rows.iloc[unsure]
            for at, more in zip(unsure, self.then.timed(part, self.then.answer(part)), strict=False):
                times[at] += more
        return times

    def figures(self) -> dict[str, float]:
        """The share of requests that escalated."""
        return {"cascade.escalated_share": self.escalated / max(self.requests, 1), "cascade.below": self.below}

    def _escalates(self, answer: Answer) -> bool:
        return answer.text is None or answer.confidence is None or answer.confidence < self.below


def _both(first: Answer, then: Answer) -> Answer:
    """The other's answer, with what both cost and took."""
    if then.text is None:
        return replace(then, escalated=True)
    took = None if then.latency_ms is None or first.latency_ms is None else first.latency_ms + then.latency_ms
    return replace(
        then,
        latency_ms=took,
        usd=first.usd + then.usd,
        input_tokens=first.input_tokens + then.input_tokens,
        cached_tokens=first.cached_tokens + then.cached_tokens,
        output_tokens=first.output_tokens + then.output_tokens,
        from_store=first.from_store and then.from_store,
        usage_known=first.usage_known and then.usage_known,
        escalated=True,
    )
