"""Asks models over HTTP, many requests at a time: stored answers first, every call metered, lost ones tried again.

It does not score, judge or render prompts, and never turns a lost request into an empty answer. Only what the transport
lost is tried again: what was paid is kept, as received where it cannot be read. Prediction in process (students,
adapters during training) and the providers' batch interface are not here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Required, Self, TypedDict, Unpack

from leastwise.endpoints.adaptation import Acquaintance, Attempt
from leastwise.endpoints.failure import SELDOM_PASSING, Failure, watched
from leastwise.endpoints.providers import connect
from leastwise.endpoints.reading import answer_read, counts_thinking, outcome_of, thought
from leastwise.endpoints.reply import Reply, Till, lost, reply_of
from leastwise.endpoints.request import Request, Target, request_key
from leastwise.endpoints.sending.forms import sent
from leastwise.endpoints.throttle import LONGEST_RETRY_AFTER_S, Throttle, drain, pause_s
from leastwise.stores.answer_store import Answers, StoredAnswer
from leastwise.stores.ledger import Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse

BACKOFF_S = (0.25, 8.0)
OF_ONE_REQUEST = frozenset({"403", "404"})  # what an endpoint that has answered may say of one request alone


class AsyncAsker:
    """Holds the client, the adapted concurrency and the store over many `ask` calls, so that small looks are cheap.

    `warm_first`: the first request of all goes out alone, so that those after it find their common prefix cached.
    `place`: where latencies are measured (venue, concurrency), which a stored answer's latency must be of; without one
    any will do. `memory`: what is found out of how it wants to be asked is kept there, and the first request of each
    kind to an endpoint that is not its maker's own goes out alone.
    """

    def __init__(
        self,
        target: Target,
        *,
        store: Answers,
        price: Callable[[Usage], float],
        meter: Meter | None = None,
        concurrency: int = 8,
        timeout_s: float = 60.0,
        attempts: int = 5,
        warm_first: bool = False,
        place: str | None = None,
        memory: Remembered | None = None,
    ) -> None:
        self._known = Acquaintance(target, memory)
        self.store, self.price, self.meter, self.place = store, price, meter, place
        self._till = Till(meter, price)
        self.timeout_s, self.attempts = timeout_s, attempts
        self.throttle = Throttle(concurrency)
        self._is_dead = self._has_answered = False
        self._closed_until = -math.inf
        self._warm = not warm_first
        self._connection = connect(self.target, timeout_s)

    @property
    def target(self) -> Target:
        """Who is asked, with the habits that are known by now."""
        return self._known.target

    async def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """Replies in the order of the requests; `on_reply` sees each as soon as it is there (and stored).

        Requests that are the same under `request_key` are asked once. Raises BudgetExceeded when the next call could
        break a cap, after what is in flight has been received and stored; BadInput where a person must put something
        right before anything is answered; CannotBeAsked where the model does not take such requests.
        """
        for request in requests:
            self._known.require(request)
        met = await self._meet(requests)
        keys = [request_key(self.target, request) for request in requests]
        replies: dict[int, Reply] = {}

        def deliver(index: int, reply: Reply) -> None:
            replies[index] = reply
            if on_reply:
                on_reply(reply)

        held = self.store.get_many(list(dict.fromkeys(keys)), self.place)
        waiting: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            if index in met:
                deliver(index, met[index])
            elif key in held:
                deliver(index, reply_of(requests[index], held[key], self.price, from_store=True))
            else:
                waiting.setdefault(key, []).append(index)

        async def work(key: str, indices: list[int]) -> None:
            reply, answer = await self._answer(requests[indices[0]], key)
            deliver(indices[0], reply)
            for index in indices[1:]:
                other = requests[index]
                lacking = replace(reply, row_id=other.row_id)
                deliver(index, reply_of(other, answer, self.price, from_store=True) if answer else lacking)

        if waiting and not self._warm:
            # Alone, so that the provider has the common prefix before many requests that share it come at once.
            self._warm = True
            first = next(iter(waiting))
            await drain(deque([partial(work, first, waiting.pop(first))]), 1)
        await drain(deque(partial(work, *each) for each in waiting.items()), self.throttle.ceiling)
        return [replies[index] for index in range(len(requests))]

    async def time(self, requests: Sequence[Request]) -> list[float]:
        """Milliseconds these requests take in this place, NaN for what was lost.

        What was not timed here yet is sent once more: its time is kept, its first answer stays.
        """
        keys = [request_key(self.target, request) for request in requests]
        held = self.store.get_many(list(dict.fromkeys(keys)), self.place)
        wanted = {key: each for key, each in zip(keys, requests, strict=True) if _has_no_time(held.get(key))}
        await drain(deque(partial(self._time, each, key) for key, each in wanted.items()), self.throttle.ceiling)
        timed = held | self.store.get_many(list(wanted), self.place)
        return [math.nan if _has_no_time(timed.get(key)) else timed[key].latency_ms or 0.0 for key in keys]

    async def _time(self, request: Request, key: str) -> None:
        await self._answer(request, key)

    @property
    def offers_constraints(self) -> bool:
        """Whether the model can be held to a JSON schema."""
        return self.target.habits.json_schema is not False

    async def _meet(self, requests: Sequence[Request]) -> dict[int, Reply]:
        """Ask the first request of each kind that is new here alone; gives back what came, by the request's place."""
        met: dict[int, Reply] = {}
        for index, request in enumerate(requests):
            key = request_key(self.target, request)
            if self._known.wants_to_meet(request) and not self.store.get_many([key], self.place):
                self._known.have_met(request)
                met[index], answer = await self._answer(request, key, alone=True)
                self._warm = True
                self._known.note_answer(request, answer)
        return met

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._connection.aclose()

    async def _answer(self, request: Request, key: str, alone: bool = False) -> tuple[Reply, StoredAnswer | None]:
        """One answer, after at most `attempts` calls; only failures of the transport are tried again.

        Where all fail in a way that seldom passes, the other requests are sent once each until one gets through.
        """
        failure = Failure("not sent", is_retried=False, is_billed=False)
        for attempt in range(self.attempts):
            if (wait_s := self._closed_until - time.monotonic()) > 0:
                return lost(request, f"the provider takes nothing for another {wait_s:.0f} s; run again then"), None
            async with self.throttle:
                outcome = await Attempt(self._known, request, alone).made(self._metered_call)
            if isinstance(outcome, StoredAnswer):
                self._is_dead = False
                return reply_of(request, outcome, self.price, from_store=False), outcome
            failure = outcome
            if not failure.is_retried or (failure.kind in SELDOM_PASSING and self._is_dead):
                break
            if attempt + 1 < self.attempts:
                await self._wait(failure, attempt)
        else:
            self._is_dead = failure.kind in SELDOM_PASSING
        return lost(request, self._known.remedy(failure), failure.finish_reason), None

    async def _wait(self, failure: Failure, attempt: int) -> None:
        await asyncio.sleep(pause_s(failure.retry_after_s, attempt, BACKOFF_S))

    async def _metered_call(self, request: Request, target: Target) -> StoredAnswer | Failure:
        """One call: reserved before, settled after at its price, at its worst where it may be billed, or released."""
        reservation, started = await self._till.promised(request), time.perf_counter()
        with watched() as wire:
            try:
                response, latency_ms = await self._send(request, target)
            except BaseException as error:
                latency_ms = (time.perf_counter() - started) * 1000
                outcome = outcome_of(error, wire, request, latency_ms)
                if outcome is None:
                    self._till.close(reservation, is_billed=wire.was_sent)
                    raise
            else:
                outcome = answer_read(response, wire, request, latency_ms)
        self._known.saw_thinking |= counts_thinking(wire)
        if isinstance(outcome, Failure):
            self._till.close(reservation, is_billed=outcome.is_billed)
            self._note(outcome)
            return outcome
        try:
            self.store.put(request_key(target, request), outcome, self.place)
        finally:
            self._till.settle(reservation, request, outcome)
        self._has_answered = True
        self.throttle.speed_up(latency_ms / 1000)
        return outcome

    def _note(self, failure: Failure) -> None:
        """What a failure says of the calls to come; BadInput where none can be answered before a person did something.

        Who says to come back after longer than is waited for is not asked again till then.
        """
        if failure.is_rate_limited:
            self.throttle.slow_down(failure.retry_after_s)
        if (failure.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            self._closed_until = time.monotonic() + (failure.retry_after_s or 0.0)
        if failure.remedy and not (failure.kind in OF_ONE_REQUEST and self._has_answered):
            raise failure.refused(self.target.shown)

    async def _send(self, request: Request, target: Target) -> tuple[ModelResponse, float]:
        """The provider's response and the milliseconds it took."""
        self._connection = self._connection.asked_with(target.habits)
        response, latency_ms = await sent(self._connection.model, target, request, self.timeout_s)
        self._known.saw_thinking |= thought(response)
        return response, latency_ms


class Options(TypedDict, total=False):
    """What `AsyncAsker` takes beside its target."""

    store: Required[Answers]
    price: Required[Callable[[Usage], float]]
    meter: Meter | None
    concurrency: int
    timeout_s: float
    attempts: int
    warm_first: bool
    place: str | None
    memory: Remembered | None


class Asker:
    """`AsyncAsker` for code that is not async: a context manager with its own event loop, reused by every `ask`.

    It cannot be used inside a running event loop.
    """

    def __init__(self, target: Target, **options: Unpack[Options]) -> None:
        self._runner = asyncio.Runner()
        self._asker = AsyncAsker(target, **options)

    @property
    def target(self) -> Target:
        """Who is asked."""
        return self._asker.target

    @property
    def offers_constraints(self) -> bool:
        """As `AsyncAsker.offers_constraints`."""
        return self._asker.offers_constraints

    @property
    def meter(self) -> Meter | None:
        """Who pays; None where calls are free."""
        return self._asker.meter

    def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """As `AsyncAsker.ask`."""
        return self._runner.run(self._asker.ask(requests, on_reply))

    def time(self, requests: Sequence[Request]) -> list[float]:
        """As `AsyncAsker.time`."""
        return self._runner.run(self._asker.time(requests))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._asker.aclose())
        self._runner.close()


def _has_no_time(answer: StoredAnswer | None) -> bool:
    return answer is None or answer.latency_ms is None
