"""A distilled encoder at work: behind the MLflow model server, one text a request, at the traffic's concurrency.

It stores no answer: a student is quick to ask again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from leastwise.answering.answerer import PlainAnswerer, latencies_of
from leastwise.answering.servers import student_server
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.student import ask_student
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.models.causal_model import tokenizer_of
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.stores import storage
from leastwise.use_case.price import Usage
from leastwise.use_case.training import LONGEST_TOKENS

if TYPE_CHECKING:
    import pandas as pd

ANSWER_TOKENS = 1  # what a label is billed as
TIMED_TEXTS = 60


class StudentAnswerer(PlainAnswerer):
    """A student over HTTP."""

    def __init__(self, work: Workspace, candidate: Candidate, stack: ExitStack) -> None:
        assert candidate.weights is not None
        self._work, self._directory = work, storage.fetch(candidate.weights.uri, work.fetched)
        self.price = work.catalogue.price_in_venue(candidate)
        self.usd_worst_case = self.price.worst_case_usd(LONGEST_TOKENS, ANSWER_TOKENS) if self.price else 0.0
        self._endpoint = stack.enter_context(student_server(work.home, candidate))
        self._tokens("loaded before requests are timed, and by one thread")
        self.requests_per_s = self._measure_speed()
        self.fixed_usd_per_request = fixed_usd_per_request(work.use_case, candidate.venue, self.requests_per_s)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Labels and latency over HTTP, one request a row."""
        return self._ask_all(list(rows["text"]))

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`: a student's answers are not stored, each is asked for anew."""
        return self.answer(rows)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Every answer already came over HTTP."""
        return latencies_of(answers)

    def _ask_all(self, texts: list[str]) -> list[Answer]:
        with ThreadPoolExecutor(self._work.use_case.traffic.concurrency) as pool:
            return list(pool.map(self._ask, texts))

    def _ask(self, text: str) -> Answer:
        try:
            reply = ask_student(self._endpoint, [text], column="text")
        except (RuntimeError, OSError) as error:
            return Answer(None, None, 0.0, error=str(error))
        usage = Usage(input_tokens=self._tokens(text), output_tokens=ANSWER_TOKENS)
        said = reply.predictions[0]
        return Answer(
            text=str(said["label"]),
            latency_ms=reply.latency_ms,
            usd=self.price.usd(usage) if self.price else 0.0,
            input_tokens=usage.input_tokens,
            output_tokens=ANSWER_TOKENS,
            from_store=True,
            confidence=float(said["confidence"]),
            energy=float(said["energy"]),
        )

    def _tokens(self, text: str) -> int:
        return len(tokenizer_of(str(self._directory)).encode(text))

    def _measure_speed(self) -> float:
        """Requests a second at the traffic's concurrency, on gate rows, after a warm-up."""
        texts = list(self._work.tables.need("gate")["text"].head(TIMED_TEXTS))
        self._ask(texts[0])
        started = time.perf_counter()
        self._ask_all(texts)
        return len(texts) / (time.perf_counter() - started)
