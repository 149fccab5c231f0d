"""Asks models over HTTP, many requests at a time: stored answers first, every call metered, lost ones tried again.

It does not score, judge or render prompts, and never turns a lost request into an empty answer; an error of our own is
raised, never tried again. Prediction in process (students, adapters during training) and the providers' batch interface
are not here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Required, Self, TypedDict, Unpack

from leastwise.endpoints.adaptation import Acquaintance, Attempt
from leastwise.endpoints.asking import parameters_of, provider_messages, settings_of
from leastwise.endpoints.failure import SHOWN_CHARACTERS, UNREACHABLE, Failure, failure_of, watched
from leastwise.endpoints.providers import UnreadableResponseError, answer_of, connect, thought
from leastwise.endpoints.reply import Reply, lost, reply_of
from leastwise.endpoints.request import Request, Target, request_key, usd_worst
from leastwise.endpoints.throttle import LONGEST_RETRY_AFTER_S, Throttle
from leastwise.stores.answer_store import ResponseStore, StoredAnswer
from leastwise.stores.ledger import Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse

BACKOFF_S = (0.25, 8.0)


class AsyncAsker:
    """Holds the client, the adapted concurrency and the store over many `ask` calls, so that small looks are cheap.

    `warm_first`: the first request of all goes out alone, so that those after it find their common prefix cached. So
    does, with a `memory`, the first of each kind to an endpoint that is not its maker's own, to learn how it is asked.
    """

    def __init__(
        self,
        target: Target,
        *,
        store: ResponseStore,
        price: Callable[[Usage], float],
        meter: Meter | None = None,
        concurrency: int = 8,
        timeout_s: float = 60.0,
        attempts: int = 5,
        warm_first: bool = False,
        memory: Remembered | None = None,
    ) -> None:
        self._known = Acquaintance(target, memory)
        self.store, self.price, self.meter = store, price, meter
        self.timeout_s, self.attempts = timeout_s, attempts
        self.throttle = Throttle(concurrency)
        self._unreachable = False
        self._warm = not warm_first
        self._connection = connect(self.target, timeout_s)

    @property
    def target(self) -> Target:
        """Who is asked, with the habits that are known by now."""
        return self._known.target

    async def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """Replies in the order of the requests; `on_reply` sees each as soon as it is there (and stored).

        Requests that are the same under `request_key` are asked once. Raises BudgetExceeded when the next call could
        break a cap, after what is in flight has been received and stored, and CannotBeAsked where the model does not
        take such requests.
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

        held = self.store.get_many(list(dict.fromkeys(keys)))
        waiting: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            if index in met:
                deliver(index, met[index])
            elif key in held:
                deliver(index, reply_of(requests[index], held[key], from_store=True))
            else:
                waiting.setdefault(key, []).append(index)

        async def work(key: str, indices: list[int]) -> None:
            reply, answer = await self._answer(requests[indices[0]], key)
            deliver(indices[0], reply)
            for index in indices[1:]:
                again = (
                    reply_of(requests[index], answer, from_store=True) if answer else lost(requests[index], reply.error)
                )
                deliver(index, again)

        if waiting and not self._warm:
            # Alone, so that the provider has the common prefix before many requests that share it come at once.
            self._warm = True
            first = next(iter(waiting))
            await _drain(deque([partial(work, first, waiting.pop(first))]), 1)
        await _drain(deque(partial(work, *each) for each in waiting.items()), self.throttle.ceiling)
        return [replies[index] for index in range(len(requests))]

    @property
    def offers_constraints(self) -> bool:
        """Whether the model can be held to a JSON schema."""
        return self.target.habits.json_schema is not False

    async def _meet(self, requests: Sequence[Request]) -> dict[int, Reply]:
        """Ask the first request of each kind that is new here alone; gives back what came, by the request's place."""
        met: dict[int, Reply] = {}
        for index, request in enumerate(requests):
            key = request_key(self.target, request)
            if not self._known.wants_to_meet(request) or self.store.get_many([key]):
                continue
            self._known.have_met(request)
            met[index], answer = await self._answer(request, key, alone=True)
            self._warm = True
            if answer:
                self._known.note_answer(request, answer)
        return met

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._connection.aclose()

    async def _answer(self, request: Request, key: str, alone: bool = False) -> tuple[Reply, StoredAnswer | None]:
        """One answer, after at most `attempts` calls; only failures of the transport are tried again.

        Once a request found nobody listening at every attempt, the others are sent once each until one gets through.
        """
        failure = Failure("not sent", is_retried=False, is_billed=False)
        for attempt in range(self.attempts):
            async with self.throttle:
                outcome = await self._adapted_call(request, key, alone)
            if isinstance(outcome, StoredAnswer):
                self._unreachable = False
                return reply_of(request, outcome, from_store=False), outcome
            failure = outcome
            if not failure.is_retried or (failure.kind == UNREACHABLE and self._unreachable):
                break
            if attempt + 1 < self.attempts:
                await self._wait(failure, attempt)
        else:
            self._unreachable = failure.kind == UNREACHABLE
        return lost(request, self._known.remedy(failure)), None

    async def _wait(self, failure: Failure, attempt: int) -> None:
        if failure.retry_after_s is not None:
            await asyncio.sleep(min(failure.retry_after_s, LONGEST_RETRY_AFTER_S))
        else:
            first, most = BACKOFF_S
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(most, first * 2**attempt))

    async def _adapted_call(self, request: Request, key: str, alone: bool) -> StoredAnswer | Failure:
        """One call, and where it is refused for the way it is asked, asked in another; refusals are not billed."""
        attempt = Attempt(self._known, request, alone)
        outcome = await self._metered_call(request, key, attempt.target)
        while isinstance(outcome, Failure) and (other := attempt.next(outcome)):
            outcome = await self._metered_call(request, request_key(other, request), other)
        if isinstance(outcome, StoredAnswer):
            self._known.adopt(attempt.target)
        return outcome

    async def _metered_call(self, request: Request, key: str, target: Target) -> StoredAnswer | Failure:
        """One call: reserved before, settled after at its price, at its worst where it may be billed, or released."""
        reservation = self.meter.reserve(usd_worst(request, self.price)) if self.meter else None
        with watched() as wire:
            try:
                response, latency_ms = await self._send(request, target)
            except BaseException as error:
                failure = failure_of(error, wire)
                self._close(reservation, is_billed=wire.was_sent if failure is None else failure.is_billed)
                if failure is None:
                    raise
                if failure.is_rate_limited:
                    self.throttle.slow_down(failure.retry_after_s)
                return failure
        try:
            answer = answer_of(response, request, self.price, latency_ms)
        except UnreadableResponseError as error:
            self._close(reservation, is_billed=True)
            return Failure(str(error)[:SHOWN_CHARACTERS], is_retried=True, is_billed=True, kind="envelope")
        except BaseException:
            self._close(reservation, is_billed=True)
            raise
        try:
            self.store.put(key, answer)
        finally:
            if self.meter and reservation is not None:
                self.meter.ledger.settle(reservation, answer.usd, answer.usage)
        self.throttle.speed_up(latency_ms / 1000)
        return answer

    def _close(self, reservation: int | None, *, is_billed: bool) -> None:
        if self.meter and reservation is not None:
            ledger = self.meter.ledger
            (ledger.settle_at_worst if is_billed else ledger.release)(reservation)

    async def _send(self, request: Request, target: Target) -> tuple[ModelResponse, float]:
        """The provider's response and the milliseconds it took."""
        from pydantic_ai.direct import model_request

        settings, parameters = settings_of(target, request, self.timeout_s), parameters_of(request, target)
        messages = provider_messages(request.messages, target.habits)
        self._connection = self._connection.asked_with(target.habits)
        model = self._connection.model
        started = time.perf_counter()
        response = await model_request(
            model, messages, model_settings=settings, model_request_parameters=parameters, instrument=False
        )
        latency_ms = (time.perf_counter() - started) * 1000
        self._known.saw_thinking |= thought(response)
        return response, latency_ms


class Options(TypedDict, total=False):
    """What `AsyncAsker` takes beside its target."""

    store: Required[ResponseStore]
    price: Required[Callable[[Usage], float]]
    meter: Meter | None
    concurrency: int
    timeout_s: float
    attempts: int
    warm_first: bool
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._asker.aclose())
        self._runner.close()


async def _drain(work: deque[partial[Coroutine[None, None, None]]], workers: int) -> None:
    """Start work in order, `workers` at a time; after the first error start no more, but finish what was started."""
    errors: list[BaseException] = []

    async def worker() -> None:
        while work and not errors:
            try:
                await work.popleft()()
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*(worker() for _ in range(min(workers, len(work)))))
    if errors:
        raise errors[0]
