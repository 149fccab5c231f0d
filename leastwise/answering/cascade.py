"""A cascade at work: a cheap candidate answers, and what it is not sure of is asked of the other one as well.

Which threshold is right is not decided here (see `leastwise.evaluating.cascade_offer`). An escalated request costs both
and takes both times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Answerer, PlainAnswerer
from leastwise.engines.watch import together
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
        self.requests = self.escalated = 0

    @property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month for both."""
        return self.first.fixed_usd_per_request + self.then.fixed_usd_per_request

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
        unsure = [at for at, answer in enumerate(answers) if escalates(answer, self.below)]
        if unsure:
            for at, answer in zip(unsure, ask_then(rows.iloc[unsure]), strict=True):
                answers[at] = both(answers[at], answer)
        return answers

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Latencies over HTTP: the first's for every row, the other's on top where it was asked; lost with either."""
        first = self.first.answer(rows)  # kept by whoever answers, or quick to say again
        times = list(self.first.timed(rows, first))
        unsure = [at for at, answer in enumerate(first) if escalates(answer, self.below)]
        if unsure:
            part = rows.iloc[unsure]
            for at, more in zip(unsure, self.then.timed(part, self.then.answer(part)), strict=True):
                times[at] = _sum(times[at], more)
        return times

    def figures(self) -> dict[str, float]:
        """The share of requests that escalated; what both cost to retrain, and what their engines had to do."""
        figures = {"cascade.escalated_share": self.escalated / max(self.requests, 1), "cascade.below": self.below}
        of_each = [each.figures() for each in (self.first, self.then)]
        retraining = sum(each.get("usd.per_retraining", 0.0) for each in of_each)
        return figures | together(*of_each) | ({"usd.per_retraining": retraining} if retraining else {})


def escalates(answer: Answer, below: float) -> bool:
    """Whether the other is asked as well: there is no answer, or none that is sure enough; at 1 none is."""
    return answer.text is None or answer.confidence is None or answer.confidence < below or below >= 1


def both(first: Answer, then: Answer) -> Answer:
    """The other's answer, with what both cost and took."""
    if then.text is None:
        return replace(then, escalated=True)
    return replace(
        then,
        latency_ms=_sum(first.latency_ms, then.latency_ms),
        usd=first.usd + then.usd,
        input_tokens=first.input_tokens + then.input_tokens,
        cached_tokens=first.cached_tokens + then.cached_tokens,
        output_tokens=first.output_tokens + then.output_tokens,
        from_store=first.from_store and then.from_store,
        usage_known=first.usage_known and then.usage_known,
        escalated=True,
    )


def _sum(first: float | None, then: float | None) -> float | None:
    return None if first is None or then is None else first + then
