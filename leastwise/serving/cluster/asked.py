"""A candidate behind its Service, asked over HTTP as callers ask it, at the traffic's concurrency.

It stores no answer, and takes none of another candidate than the one that is judged.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import httpx

from leastwise.answering.answerer import PlainAnswerer, latencies_of, measured_capacity, usd_per_retraining
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.money.capacity import Load
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.redaction import redacted
from leastwise.serving.web.admission import LOAD_HEADER
from leastwise.use_case.price import Price

if TYPE_CHECKING:
    import pandas as pd

TRIES, FIRST_WAIT_S = 3, 0.5  # of a request that was lost on the way
COME_BACK = (429, 502, 503, 504)
TIMEOUT_S, MOST_WORDS = 120.0, 300


def load_key_of(key: str) -> str:
    """What the flow run that judges a candidate shows beside its key: such requests are no traffic."""
    return content_key("load", key)


@dataclass(frozen=True)
class Door:
    """Where a candidate answers, and what opens it. `at`: the place in words, for what is measured there."""

    url: str
    key: str
    at: tuple[str, ...]


class EndpointAnswerer(PlainAnswerer):
    """A candidate's own endpoint."""

    price: Price | None = None
    usd_worst_case = 0.0  # whole machines are paid

    def __init__(self, work: Workspace, candidate: Candidate, door: Door, stack: ExitStack) -> None:
        self._work, self._candidate, self._door = work, candidate, door
        shown = {"Authorization": f"Bearer {door.key}", LOAD_HEADER: load_key_of(door.key)}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        client = httpx.Client(headers=shown, timeout=TIMEOUT_S, limits=limits, trust_env=False)
        self._client = stack.enter_context(client)

    @cached_property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month; the capacity of one pod is measured for it."""
        retraining = self._usd_per_retraining if self._candidate.weights else None
        speed = self.capacity.requests_per_s
        return fixed_usd_per_request(self._work.use_case, self._candidate.venue, speed, retraining)

    @cached_property
    def capacity(self) -> Load:
        """What one pod answers within the latency bound."""
        return measured_capacity(self._work, self._candidate, self._under_load, " ".join(self._door.at))

    @cached_property
    def _usd_per_retraining(self) -> float:
        return usd_per_retraining(self._work, self._work.trained(self._candidate))

    def figures(self) -> dict[str, float]:
        """What a retraining's compute comes to, and the capacity of a pod where it was measured."""
        figures = {"usd.per_retraining": self._usd_per_retraining} if self._candidate.weights else {}
        if "capacity" in self.__dict__:
            best = self.capacity
            figures |= {"requests_per_s": best.requests_per_s, "capacity.p95_ms": best.p95_ms}
            figures["capacity.concurrency"] = float(best.concurrency)
        return figures

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One request a row."""
        return self._ask_all(rows, self._work.use_case.traffic.concurrency)

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`: nothing is stored, each is asked for anew."""
        return self.answer(rows)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Every answer already came over HTTP."""
        return latencies_of(answers)

    def _under_load(self, rows: pd.DataFrame, concurrency: int) -> list[float | None]:
        return latencies_of(self._ask_all(rows, concurrency))

    def _ask_all(self, rows: pd.DataFrame, concurrency: int) -> list[Answer]:
        with ThreadPoolExecutor(concurrency) as pool:
            return list(pool.map(self.ask, map(str, rows["text"])))

    def ask(self, text: str) -> Answer:
        """The answer to one text; the latency is that of the try that was answered."""
        body = {"model": self._work.use_case.name, "messages": [{"role": "user", "content": text}]}
        why = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            began = time.perf_counter()
            try:
                reply = self._client.post(f"{self._door.url}/v1/chat/completions", json=body)
                took_ms = (time.perf_counter() - began) * 1000
                if reply.status_code == 200:
                    return self._read(reply, took_ms)
                why = f"{reply.status_code}: {' '.join(reply.text.split())}"
                if reply.status_code not in COME_BACK:
                    break
            except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
                why = f"{type(error).__name__}: {error}"
        return Answer(None, None, 0.0, error=redacted(f"{self._door.url}: {why}")[:MOST_WORDS])

    def _read(self, reply: httpx.Response, took_ms: float) -> Answer:
        said = reply.json()
        own, usage, choice = said["leastwise"], said["usage"], said["choices"][0]
        if own["version"] != self._candidate.key:
            return Answer(
                None, None, 0.0, error=f"{self._door.url}: answers with {own['version']}, which is not judged"
            )
        return Answer(
            text=choice["message"]["content"],
            latency_ms=took_ms,
            usd=0.0,
            input_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            output_tokens=usage["completion_tokens"],
            from_store=True,  # nothing is bought of an own machine
            confidence=own["confidence"],
            finish_reason=choice["finish_reason"],
        )
