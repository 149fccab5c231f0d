"""A model at work behind an OpenAI-compatible, Anthropic or Google endpoint, with retrieval before each request.

It measures time and counts tokens; it scores nothing. A server it starts ends with the stack it was given.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer, PlainAnswerer, latencies_of
from leastwise.answering.prompts import fit_prompts
from leastwise.answering.servers import causal_server
from leastwise.answering.workspace import Workspace
from leastwise.endpoints import batches
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.use_case.model import Model
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    import pandas as pd


class ServedAnswerer(PlainAnswerer):
    """A model that is asked over HTTP."""

    def __init__(
        self,
        work: Workspace,
        candidate: Candidate,
        stack: ExitStack,
        payer: Payer | None = None,
        confident: bool = False,
    ) -> None:
        self._work, self._candidate, self._confident = work, candidate, confident
        self.price = work.catalogue.price_in_venue(candidate)
        self.usd_worst_case = work.catalogue.worst_case_usd(candidate)
        self.fixed_usd_per_request = fixed_usd_per_request(work.use_case, candidate.venue, None)
        self._asker = open_asker(work, candidate, stack, payer)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Retrieve, render, ask; latency is the request's own plus its share of the retrieval."""
        started = time.perf_counter()
        requests = self._requests(rows)
        retrieval_ms = (time.perf_counter() - started) * 1000 / max(len(rows), 1)
        return [_answer(reply, retrieval_ms) for reply in self._asker.ask(requests)]

    @property
    def offers_batches(self) -> bool:
        """Whether `answer_in_batch` can be used."""
        return batches.is_offered(self._asker.target)

    def answer_in_batch(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`, through the provider's batch interface at its price; such answers have no latency."""
        price = self.price
        replies = batches.ask_in_batch(
            self._asker.target,
            self._requests(rows),
            store=self._work.answers,
            meter=self._asker.meter,
            price=(lambda usage: price.usd(usage, batch=True)) if price else _free,
            jobs=self._work.home / "batches.db",
        )
        return [_answer(reply, 0.0) for reply in replies]

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Several answers to each row, sampled at this temperature."""
        requests = [
            replace(request, temperature=temperature, sample=sample)
            for request in self._requests(rows)
            for sample in range(1, count + 1)
        ]
        answers = [_answer(reply, 0.0) for reply in self._asker.ask(requests)]
        return [answers[at : at + count] for at in range(0, len(answers), count)]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The very same requests once more; kept apart from the first answers, so that a rerun asks no third time."""
        requests = [replace(request, sample=1) for request in self._requests(rows)]
        return [_answer(reply, 0.0) for reply in self._asker.ask(requests)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Every answer already came over HTTP."""
        return latencies_of(answers)

    def _requests(self, rows: pd.DataFrame) -> list[Request]:
        fitted = fit_prompts(self._work, self._candidate, list(rows["text"]))
        task, prompt = self._work.use_case.task, self._candidate.prompt
        is_constrained = prompt is not None and prompt.constrained
        return [
            Request(
                row_id=row_id,
                messages=tuple(Message(turn.role, turn.content) for turn in each.turns),
                max_tokens=self._work.use_case.traffic.output_tokens,
                choices=task.answers if is_constrained else None,
                json_schema=task.json_schema if is_constrained and task.kind == "extraction" else None,
                wants_confidence=self._confident,
            )
            for row_id, each in zip(rows["id"], fitted, strict=True)
        ]


def _answer(reply: Reply, retrieval_ms: float) -> Answer:
    if reply.error:
        return Answer(None, None, 0.0, error=reply.error)
    return Answer(
        text=reply.text,
        latency_ms=reply.latency_ms + retrieval_ms,
        usd=reply.usd,
        input_tokens=reply.input_tokens,
        cached_tokens=reply.cached_tokens,
        output_tokens=reply.output_tokens,
        from_store=reply.from_store,
        confidence=reply.confidence,
        finish_reason=reply.finish_reason,
    )


def open_asker(work: Workspace, candidate: Candidate, stack: ExitStack, payer: Payer | None = None) -> Asker:
    """A client of the candidate's endpoint; for open weights without one, of a server started here."""
    pays = payer or Payer(candidate.stage, "evaluation")
    price = work.catalogue.price_in_venue(candidate)
    asker = Asker(
        _target(work, candidate, work.catalogue.model(candidate.model), stack),
        store=work.answers,
        price=price.usd if price else _free,
        meter=work.budget.meter(pays.stage, pays.purpose) if price and candidate.venue == "api" else None,
        concurrency=work.use_case.traffic.concurrency,
        warm_first=candidate.cache.provider,
    )
    return stack.enter_context(asker)


def _target(work: Workspace, candidate: Candidate, model: Model, stack: ExitStack) -> Target:
    revision = candidate.revision + (candidate.weights.revision if candidate.weights else "")
    if model.is_open and not model.base_url:
        endpoint = stack.enter_context(causal_server(work.home, candidate, model.context_tokens))
        return Target.served(endpoint, candidate.model, revision)
    # Open weights behind somebody's own endpoint often need no key, and clients refuse to start without one.
    key = os.environ.get("OPENAI_API_KEY", "none") if model.is_open else None
    cached = candidate.cache.provider
    return Target(candidate.model, revision, base_url=model.base_url, api_key=key, provider_cache=cached)


def _free(usage: Usage) -> float:
    return 0.0
