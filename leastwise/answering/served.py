"""A model at work behind an OpenAI-compatible, Anthropic or Google endpoint, with retrieval before each request.

It measures time and counts tokens; it scores nothing. A server it starts ends with the stack it was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer, PlainAnswerer, Surroundings, latencies_of, measured_capacity
from leastwise.answering.prompts import FittedPrompt, fit_prompts
from leastwise.answering.reaching.reached import asker_of, free, reach
from leastwise.answering.reading.labels import as_read, check_decided, first_tokens
from leastwise.answering.retrieval import retrieval_ms
from leastwise.endpoints import batches
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.engines.watch import watched
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.metrics.answer import Answer
from leastwise.models.chat import format_chat
from leastwise.money.capacity import Load
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.stores import storage
from leastwise.stores.shared.state import open_jobs
from leastwise.use_case.habits import reasoning_tokens

if TYPE_CHECKING:
    import pandas as pd


UNDER_LOAD = 10_000  # sample numbers of requests that are sent to measure capacity: no gate's answers are among them


class ServedAnswerer(PlainAnswerer):
    """A model that is asked over HTTP."""

    def __init__(
        self,
        work: Surroundings,
        candidate: Candidate,
        stack: ExitStack,
        payer: Payer | None = None,
        confident: bool = False,
    ) -> None:
        self._work, self._candidate, self._confident = work, candidate, confident
        self.price = work.catalogue.price_in_venue(candidate)
        self.usd_worst_case = work.catalogue.worst_case_usd(candidate)
        reached = reach(work, candidate, stack)
        self._asker = asker_of(work, candidate, reached.target_of(candidate), stack, payer)
        self._engine = stack.enter_context(watched(reached.running)) if reached.running else None

    @cached_property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month; the capacity of own machines is measured for it."""
        speed = self.capacity.requests_per_s if self._candidate.venue == "self_host" else None
        return fixed_usd_per_request(self._work.use_case, self._candidate.venue, speed)

    @cached_property
    def capacity(self) -> Load:
        """What one machine answers within the latency bound."""
        return measured_capacity(self._work, self._candidate, self._under_load)

    def _under_load(self, rows: pd.DataFrame, concurrency: int) -> list[float | None]:
        requests = [replace(each, sample=UNDER_LOAD + concurrency) for each in self._requests(rows)]
        with Asker(
            self._asker.target,
            store=self._work.answers,
            price=self.price.usd if self.price else free,
            meter=self._asker.meter,
            concurrency=concurrency,
            place=f"{self._candidate.venue} at {concurrency}",
        ) as asker:
            answers = [answer_of(*each) for each in zip(asker.ask(requests), self._retrieval_ms(rows), strict=True)]
        return latencies_of(answers)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Retrieve, render, ask; latency is the request's own plus that of its retrieval."""
        replies = zip(self._asked(self._requests(rows)), self._retrieval_ms(rows), strict=True)
        return [answer_of(reply, took) for reply, took in replies]

    def _asked(self, requests: Sequence[Request]) -> list[Reply]:
        return [as_read(self._candidate, reply) for reply in self._asker.ask(requests)]

    def _retrieval_ms(self, rows: pd.DataFrame) -> list[float]:
        retriever = self._candidate.retriever
        return retrieval_ms(self._work, retriever, list(rows["text"])) if retriever else [0.0] * len(rows)

    def figures(self) -> dict[str, float]:
        """What its engine had to do, where it is ours; the capacity of an own machine, where it was measured."""
        counted = self._engine.figures() if self._engine else {}
        if "capacity" not in self.__dict__:
            return counted
        best = self.capacity
        return counted | {
            "requests_per_s": best.requests_per_s,
            "capacity.concurrency": float(best.concurrency),
            "capacity.p95_ms": best.p95_ms,
        }

    @property
    def offers_batches(self) -> bool:
        """Whether `answer_in_batch` can be used."""
        prompt = self._candidate.prompt
        is_chat = prompt is None or (prompt.format == "chat" and prompt.reading == "generate")
        return is_chat and batches.is_offered(self._asker.target)

    def answer_in_batch(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`, through the provider's batch interface at its price; such answers have no latency."""
        price = self.price
        replies = batches.ask_in_batch(
            self._asker.target,
            self._requests(rows),
            store=self._work.answers,
            meter=self._asker.meter,
            price=(lambda usage: price.usd(usage, batch=True)) if price else free,
            jobs=open_jobs(storage.home()),  # not beside what answers: a bulk run's own folder ends with it
            meet=self._met,
        )
        return [answer_of(reply, 0.0) for reply in replies]

    def _met(self, request: Request) -> Target:
        """Who is asked, after one request alone has shown how: a job of thousands would be refused a day later."""
        (reply,) = self._asker.ask([request])
        if reply.error:
            raise ConnectionError(f"{self._asker.target.shown}: the request before a batch was lost: {reply.error}")
        return self._asker.target

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Several answers to each row, sampled at this temperature."""
        requests = [
            replace(request, temperature=temperature, sample=sample)
            for request in self._requests(rows)
            for sample in range(1, count + 1)
        ]
        answers = [answer_of(reply, 0.0) for reply in self._asked(requests)]
        return [answers[at : at + count] for at in range(0, len(answers), count)]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The very same requests once more; kept apart from the first answers, so that a rerun asks no third time."""
        requests = [replace(request, sample=1) for request in self._requests(rows)]
        return [answer_of(reply, 0.0) for reply in self._asked(requests)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Every answer already came over HTTP; one that was not timed in this venue, at this concurrency, is asked for
        again, since a latency belongs to where it was measured.
        """
        times = latencies_of(answers)
        untimed = [at for at, each in enumerate(answers) if each.text is not None and each.latency_ms is None]
        if untimed:
            again = rows.iloc[untimed]
            asked = zip(untimed, self._asker.time(self._requests(again)), self._retrieval_ms(again), strict=True)
            for at, took, retrieval in asked:
                times[at] = None if math.isnan(took) else took + retrieval
        return times

    def _requests(self, rows: pd.DataFrame) -> list[Request]:
        return requests_of(self._work, self._candidate, list(rows["id"]), list(rows["text"]), self._confident)


def requests_of(
    work: Surroundings, candidate: Candidate, ids: Sequence[str], texts: Sequence[str], confident: bool = False
) -> list[Request]:
    """What a candidate's model is asked for each text, in the climb as in production."""
    task, prompt, model = work.use_case.task, candidate.prompt, work.catalogue.model(candidate.model)
    check_decided(work.catalogue, candidate)
    is_constrained, decides = prompt is not None and prompt.constrained, candidate.decides
    tokenizer = work.tokenizer(model.uri) if prompt and prompt.reading == "likelihood" else None
    begins = first_tokens(tokenizer, task.answers or (), prompt.format) if prompt and tokenizer else ()
    return [
        Request(
            row_id=row_id,
            messages=_messages(each, prompt, tokenizer),
            max_tokens=work.use_case.traffic.output_tokens,
            choices=task.answers if is_constrained or begins or decides else None,
            json_schema=task.json_schema if is_constrained and task.kind == "extraction" else None,
            wants_confidence=confident and not (begins or decides),
            reasoning_tokens=reasoning_tokens(work.catalogue.effort(candidate)),
            is_completion=bool(begins) or (prompt is not None and prompt.format == "completion"),
            first_tokens=begins,
            decides=decides,
        )
        for row_id, each in zip(ids, fit_prompts(work, candidate, texts), strict=True)
    ]


def _messages(fitted: FittedPrompt, prompt: Prompt | None, tokenizer: Path | None) -> tuple[Message, ...]:
    """The messages; of a chat whose labels' likelihood is read the one text its template makes of them."""
    if prompt and tokenizer and prompt.format == "chat":
        return (Message("user", format_chat(tokenizer, fitted.turns)),)
    return tuple(Message(turn.role, turn.content) for turn in fitted.turns)


def answer_of(reply: Reply, retrieval_ms: float = 0.0) -> Answer:
    """A model's reply as an answer, the time of its retrieval added."""
    if reply.error:
        return Answer(None, None, 0.0, error=reply.error, finish_reason=reply.finish_reason)
    return Answer(
        text=reply.text,
        latency_ms=None if math.isnan(reply.latency_ms) else reply.latency_ms + retrieval_ms,
        usd=reply.usd,
        input_tokens=reply.input_tokens,
        cached_tokens=reply.cached_tokens,
        output_tokens=reply.output_tokens,
        from_store=reply.from_store,
        confidence=reply.confidence,
        finish_reason=reply.finish_reason,
        usage_known=reply.usage_known,
        answered_by=reply.answered_by,
    )
