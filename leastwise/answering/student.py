"""A distilled encoder at work: behind the MLflow model server, one text a request, at the traffic's concurrency.

It stores no answer: a student is quick to ask again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import (
    PlainAnswerer,
    Surroundings,
    latencies_of,
    measured_capacity,
    usd_per_retraining,
)
from leastwise.answering.servers import student_server
from leastwise.endpoints.student import ask_student
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.student import StudentAnswer
from leastwise.money.capacity import Load
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.use_case.price import Price, Usage
from leastwise.use_case.training import LONGEST_TOKENS

if TYPE_CHECKING:
    import pandas as pd

ANSWER_TOKENS = 1  # what a label is billed as


class StudentAnswerer(PlainAnswerer):
    """A student over HTTP."""

    def __init__(self, work: Surroundings, candidate: Candidate, stack: ExitStack) -> None:
        assert candidate.weights is not None
        self._work, self._directory = work, work.trained(candidate)
        self.price = work.catalogue.price_in_venue(candidate)
        self.usd_worst_case = self.price.worst_case_usd(LONGEST_TOKENS, ANSWER_TOKENS) if self.price else 0.0
        self._endpoint = stack.enter_context(student_server(work.home, candidate, self._directory))
        tokenizer_of(str(self._directory))  # loaded before requests are timed, and by one thread
        self._candidate = candidate

    @cached_property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month; the capacity of own machines is measured for it."""
        speed = self.capacity.requests_per_s if self._candidate.venue == "self_host" else None
        return fixed_usd_per_request(self._work.use_case, self._candidate.venue, speed, self._usd_per_retraining)

    @cached_property
    def capacity(self) -> Load:
        """What one machine answers within the latency bound, after a warm-up."""
        self._ask(str(self._work.gate.rows["text"].iloc[0]))
        return measured_capacity(self._work, self._candidate, self._under_load)

    @cached_property
    def _usd_per_retraining(self) -> float:
        return usd_per_retraining(self._work, self._directory)

    def _under_load(self, rows: pd.DataFrame, concurrency: int) -> list[float | None]:
        return latencies_of(self._ask_all(list(rows["text"]), concurrency))

    def figures(self) -> dict[str, float]:
        """What a retraining's compute comes to, and the capacity of an own machine where it was measured."""
        figures = {"usd.per_retraining": self._usd_per_retraining}
        if "capacity" in self.__dict__:
            figures |= {"requests_per_s": self.capacity.requests_per_s, "capacity.p95_ms": self.capacity.p95_ms}
            figures["capacity.concurrency"] = float(self.capacity.concurrency)
        return figures

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Labels and latency over HTTP, one request a row."""
        return self._ask_all(list(rows["text"]), self._work.use_case.traffic.concurrency)

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`: a student's answers are not stored, each is asked for anew."""
        return self.answer(rows)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Every answer already came over HTTP."""
        return latencies_of(answers)

    def _ask_all(self, texts: list[str], concurrency: int) -> list[Answer]:
        with ThreadPoolExecutor(concurrency) as pool:
            return list(pool.map(self._ask, texts))

    def _ask(self, text: str) -> Answer:
        try:
            reply = ask_student(self._endpoint, [text], column="text")
        except (RuntimeError, OSError) as error:
            return Answer(None, None, 0.0, error=str(error))
        said = reply.predictions[0]
        known = StudentAnswer(str(said["label"]), float(said["confidence"]), float(said["energy"]))
        return replace(student_answer(self._directory, self.price, text, known), latency_ms=reply.latency_ms)


def student_answer(directory: Path, price: Price | None, text: str, said: StudentAnswer) -> Answer:
    """A student's words to a text as an answer, at what its venue bills for the tokens, climb and production alike."""
    usage = Usage(input_tokens=len(tokenizer_of(str(directory)).encode(text)), output_tokens=ANSWER_TOKENS)
    return Answer(
        text=said.label,
        latency_ms=None,
        usd=price.usd(usage) if price else 0.0,
        input_tokens=usage.input_tokens,
        output_tokens=ANSWER_TOKENS,
        from_store=True,
        confidence=said.confidence,
        energy=said.energy,
    )
