"""A registered winner at work: one request at a time or many at once, by the code that the gate judged it with.

What is asked, read, declined and escalated is said in `leastwise.answering`; here the same happens without waiting for
a whole look. A winner holds at most `MOST_IN_FLIGHT` requests with one provider at a time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from leastwise.answering import cascade, guard
from leastwise.answering.reaching.reached import target_of
from leastwise.answering.reading.labels import as_read
from leastwise.answering.served import answer_of, requests_of
from leastwise.answering.student import student_answer
from leastwise.endpoints.inference import AsyncAsker
from leastwise.endpoints.request import Request
from leastwise.errors import BadInput, CannotBeAsked, TextTooLong
from leastwise.evidence.abstention import Guard
from leastwise.ladder.candidate import Candidate
from leastwise.metrics import normalize
from leastwise.metrics.answer import Answer
from leastwise.models.machine import THREADS
from leastwise.models.student import Student
from leastwise.rows.personal_data import masked
from leastwise.serving.live import TOO_LONG
from leastwise.serving.production import Production
from leastwise.stores.remembered import Remembered
from leastwise.stores.response_cache import ResponseCache, open_cache, response_key
from leastwise.use_case.price import Price, Usage

MOST_IN_FLIGHT = 64
TRIES = 2  # of a request that the transport lost; a caller waits


class Responder(Protocol):
    """Whoever answers one text."""

    async def __call__(self, text: str) -> Answer:
        """The answer; its `text` is None where it was lost."""
        ...


@dataclass(frozen=True)
class Winner:
    """A winner that answers; `version` is what the registry calls it, empty where it is not registered."""

    production: Production
    respond: Responder
    version: str
    stack: AsyncExitStack

    @property
    def key(self) -> str:
        """The candidate's key."""
        return self.production.candidate.key

    async def answer(self, text: str) -> Answer:
        """The answer to one text, masked as every text of the climb was, with the label it means; where it was lost,
        `text` is None and `error` says why.
        """
        task = self.production.use_case.task
        answer = await self.respond(masked(text, self.mask))
        if answer.text is None or task.kind != "classification":
            return answer
        return replace(answer, label=normalize(task, answer.text))

    @property
    def mask(self) -> tuple[str, ...]:
        """The kinds of personal data that are masked in every text before it is asked."""
        return self.production.use_case.data.mask

    async def aclose(self) -> None:
        """End what it started; nothing may be in flight any longer."""
        await self.stack.aclose()


async def open_winner(folder: Path, version: str = "") -> Winner:
    """Open the bundle in a folder: check every file, start what it needs, answer nothing yet.

    BadInput for a bundle that is not whole or a provider's key that is not there; StartError where a server of its own
    does not start.
    """
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leastwise-serving-")))
        production = await asyncio.to_thread(Production.of, folder, home)
        respond = await stack.enter_async_context(_responder(production, production.candidate))
        return Winner(production, respond, version, stack.pop_all())
    raise AssertionError("unreachable")


@asynccontextmanager
async def _responder(production: Production, candidate: Candidate, confident: bool = False) -> AsyncIterator[Responder]:
    """Who answers for a candidate, put together as `leastwise.answering.answerers` does it."""
    inner = candidate.model_copy(update={"cache": candidate.cache.model_copy(update={"exact": False})})
    async with AsyncExitStack() as stack:
        if candidate.cache.exact:
            policy = candidate.cache
            cache = open_cache(production.home / f"{candidate.key}.db", policy.ttl_s, policy.most_bytes)
            stack.callback(cache.close)
            behind = await stack.enter_async_context(_responder(production, inner, confident))
            yield _Cached(behind, cache, candidate)
        elif candidate.guard:
            needs = confident or candidate.guard.score != "distance"
            plain = inner.model_copy(update={"guard": None})
            behind = await stack.enter_async_context(_responder(production, plain, needs))
            yield _Guarded(behind, candidate.guard, production)
        elif candidate.cascade:
            rest = inner.model_copy(update={"cascade": None})
            first = await stack.enter_async_context(_responder(production, candidate.cascade.first, True))
            then = await stack.enter_async_context(_responder(production, rest))
            yield _Cascade(first, then, candidate.cascade.below)
        elif candidate.weights and candidate.weights.kind == "student":
            yield await _Student.loaded(production.trained(candidate), production.catalogue.price_in_venue(candidate))
        else:
            yield await stack.enter_async_context(_asked(production, candidate, confident))


@asynccontextmanager
async def _asked(production: Production, candidate: Candidate, confident: bool) -> AsyncIterator[Responder]:
    with ExitStack() as servers:
        target = await asyncio.to_thread(target_of, production, candidate, servers)
        price = production.catalogue.price_in_venue(candidate)
        asker = AsyncAsker(
            target,
            store=production.answers,
            price=price.usd if price else _free,
            concurrency=MOST_IN_FLIGHT,
            attempts=TRIES,
            memory=Remembered(production.home / "habits"),
        )
        try:
            yield _Asked(production, candidate, asker, confident)
        finally:
            await asker.aclose()


@dataclass(frozen=True)
class _Asked:
    """A model over HTTP."""

    production: Production
    candidate: Candidate
    asker: AsyncAsker
    confident: bool

    async def __call__(self, text: str) -> Answer:
        try:
            if self.candidate.retriever:  # embedding and searching takes a core, and others are waiting
                requests = await asyncio.to_thread(self._requests, text)
            else:
                requests = self._requests(text)
            (reply,) = await self.asker.ask(requests)
        except TextTooLong as error:
            return Answer(None, None, 0.0, error=str(error), finish_reason=TOO_LONG)
        except (BadInput, CannotBeAsked) as error:
            return Answer(None, None, 0.0, error=str(error))
        return answer_of(as_read(self.candidate, reply))

    def _requests(self, text: str) -> list[Request]:
        return requests_of(self.production, self.candidate, [""], [text], self.confident)


@dataclass(frozen=True)
class _Student:
    """A distilled encoder in this process, one text at a time in a thread."""

    student: Student
    price: Price | None
    turn: asyncio.Semaphore

    @classmethod
    async def loaded(cls, folder: Path, price: Price | None) -> _Student:
        """With its weights in memory."""
        student = cls(Student(folder, THREADS), price, asyncio.Semaphore(1))
        await student("warm up")
        return student

    async def __call__(self, text: str) -> Answer:
        async with self.turn:
            return await asyncio.to_thread(self._answered, text)

    def _answered(self, text: str) -> Answer:
        (said,) = self.student.answer([text])
        return student_answer(self.student.directory, self.price, text, said)


@dataclass(frozen=True)
class _Cascade:
    """A cheap responder first, and the other for what it is not sure of."""

    first: Responder
    then: Responder
    below: float

    async def __call__(self, text: str) -> Answer:
        answer = await self.first(text)
        return cascade.both(answer, await self.then(text)) if cascade.escalates(answer, self.below) else answer


@dataclass(frozen=True)
class _Guarded:
    """A responder behind a guard."""

    behind: Responder
    guard: Guard
    production: Production

    async def __call__(self, text: str) -> Answer:
        decline = self.production.use_case.task.decline_label or ""
        if self.guard.score != "distance":
            return guard.judged(await self.behind(text), self.guard, decline)
        near = self.production.near
        if near is None:
            raise BadInput("the bundle lacks the distance that its guard goes by; register the winner again")
        (score,) = (await asyncio.to_thread(near.scores, [text])).tolist()
        if score < self.guard.below:
            return Answer(decline, None, 0.0, from_store=True, scope=score)
        return replace(await self.behind(text), scope=score)


@dataclass(frozen=True)
class _Cached:
    """A responder behind the response cache."""

    behind: Responder
    cache: ResponseCache
    candidate: Candidate

    async def __call__(self, text: str) -> Answer:
        key = response_key(self.candidate, text)
        held = self.cache.get(key)
        if held is not None:
            kept = json.loads(held)
            return Answer(kept["text"], None, 0.0, from_store=True, confidence=kept["confidence"])
        answer = await self.behind(text)
        if answer.text is not None:
            self.cache.put(key, json.dumps({"text": answer.text, "confidence": answer.confidence}).encode())
        return answer


def _free(usage: Usage) -> float:
    return 0.0
