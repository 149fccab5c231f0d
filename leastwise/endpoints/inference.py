"""Asks models over HTTP, many requests at a time: stored answers first, every call metered, lost ones tried again.

It does not score, judge or render prompts, and never turns a lost request into an empty answer. Prediction in process
(students, adapters during training) and the providers' batch interface are not here.
"""

import asyncio
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from leastwise.endpoints.providers import (
    Request,
    Target,
    chosen_label,
    close,
    confidence_of,
    model_of,
    parameters_of,
    provider_messages,
    settings_of,
)
from leastwise.endpoints.throttle import LONGEST_RETRY_AFTER_S, Throttle
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore, StoredAnswer, answer_key, stored_now
from leastwise.stores.ledger import Meter
from leastwise.use_case.price import Usage

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
BACKOFF_S = (0.25, 8.0)
UNREACHABLE = "unreachable"
TEMPLATE_TOKENS = (64, 16)  # a generous allowance for the chat template: per request, per message


@dataclass(frozen=True)
class Reply:
    """What became of one request. `error` is set when the infrastructure lost it: then there is no answer to score.

    `latency_ms` and `usd` are those of the call that bought the answer, also when it comes from the store (where it
    costs nothing now). An empty or refused answer is an answer: `error` is None.
    """

    row_id: str
    text: str
    latency_ms: float
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    usd: float
    from_store: bool
    error: str | None
    finish_reason: str
    confidence: float | None = None


def request_key(target: Target, request: Request) -> str:
    """The key an answer is stored under: everything that determines it, and not where the server happens to listen."""
    asked = {k: v for k, v in asdict(request).items() if k != "row_id" and (k != "wants_confidence" or v)}
    return answer_key(uri=target.uri, revision=target.revision, provider_cache=target.provider_cache, **asked)


def most_usage(request: Request) -> Usage:
    """An upper limit of a call's tokens: a byte-level tokenizer never makes more tokens than there are UTF-8 bytes."""
    constraint = json.dumps([request.json_schema, request.choices], ensure_ascii=False)
    text_bytes = sum(len(m.content.encode()) for m in request.messages) + len(constraint.encode())
    per_request, per_message = TEMPLATE_TOKENS
    input_tokens = text_bytes + per_request + per_message * len(request.messages)
    return Usage(input_tokens=input_tokens, output_tokens=request.most_output_tokens)


def usd_worst(request: Request, price: Callable[[Usage], float]) -> float:
    """The most a call can cost: every token at the dearer of the plain and the cache-writing rate."""
    most = most_usage(request)
    return max(price(most), price(Usage(most.input_tokens, 0, most.input_tokens, most.output_tokens)))


class AsyncAsker:
    """Holds the client, the adapted concurrency and the store over many `ask` calls, so that small looks are cheap.

    `warm_first`: the first request of all goes out alone, so that those after it find their common prefix cached.
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
    ) -> None:
        self.target, self.store, self.price, self.meter = target, store, price, meter
        self.timeout_s, self.attempts = timeout_s, attempts
        self.throttle = Throttle(concurrency)
        self.calls_paid = 0
        self.faults: Counter[str] = Counter()
        self._unreachable = False
        self._warm = not warm_first
        self._model = model_of(target, timeout_s)

    async def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """Replies in the order of the requests; `on_reply` sees each as soon as it is there (and stored).

        Requests that are the same under `request_key` are asked once. Raises BudgetExceeded when the next call could
        break a cap, after what is in flight has been received and stored.
        """
        self._require_constraints(requests)
        keys = [request_key(self.target, request) for request in requests]
        replies: dict[int, Reply] = {}

        def deliver(index: int, reply: Reply) -> None:
            replies[index] = reply
            if on_reply:
                on_reply(reply)

        held = self.store.get_many(list(dict.fromkeys(keys)))
        waiting: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            if key in held:
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
            await _drain(deque([work(first, waiting.pop(first))]), 1)
        await _drain(deque(work(key, indices) for key, indices in waiting.items()), self.throttle.ceiling)
        return [replies[index] for index in range(len(requests))]

    @property
    def offers_constraints(self) -> bool:
        """Whether the model can be held to a JSON schema."""
        return bool(self._model.profile.get("supports_json_schema_output", False))

    def _require_constraints(self, requests: Sequence[Request]) -> None:
        if not self.offers_constraints and any(r.choices is not None or r.json_schema is not None for r in requests):
            raise BadInput(f"{self.target.uri}: this model offers no constrained output; use it unconstrained")

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await close(self._model)

    async def _answer(self, request: Request, key: str) -> tuple[Reply, StoredAnswer | None]:
        """One answer, after at most `attempts` calls; only failures of the transport are tried again.

        Once a request found nobody listening at every attempt, the others are sent once each until one gets through.
        """
        failure = _Failure("not sent", retry=False, billed=False)
        for attempt in range(self.attempts):
            async with self.throttle:
                outcome = await self._metered_call(request, key)
            if isinstance(outcome, StoredAnswer):
                self._unreachable = False
                return reply_of(request, outcome, from_store=False), outcome
            failure = outcome
            self.faults[failure.kind] += 1
            if not failure.retry or (failure.kind == UNREACHABLE and self._unreachable):
                break
            if attempt + 1 < self.attempts:
                await self._wait(failure, attempt)
        else:
            self._unreachable = failure.kind == UNREACHABLE
        return lost(request, failure.message), None

    async def _wait(self, failure: "_Failure", attempt: int) -> None:
        if failure.retry_after_s is not None:
            await asyncio.sleep(min(failure.retry_after_s, LONGEST_RETRY_AFTER_S))
        else:
            first, most = BACKOFF_S
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(most, first * 2**attempt))

    async def _metered_call(self, request: Request, key: str) -> "StoredAnswer | _Failure":
        reservation = self.meter.reserve(usd_worst(request, self.price)) if self.meter else None
        try:
            answer = await self._call(request)
            self.store.put(key, answer)
        except BaseException as error:
            failure = _failure(error)
            self._count(reservation, billed=failure is None or failure.billed)
            if failure is None:
                raise
            if failure.rate_limited:
                self.throttle.slow_down(failure.retry_after_s)
            return failure
        self.throttle.speed_up(answer.latency_ms / 1000)
        self.calls_paid += 1
        if self.meter and reservation is not None:
            self.meter.ledger.settle(reservation, answer.usd, answer.usage)
        return answer

    def _count(self, reservation: int | None, *, billed: bool) -> None:
        if self.meter and reservation is not None:
            ledger = self.meter.ledger
            (ledger.settle_at_worst if billed else ledger.release)(reservation)

    async def _call(self, request: Request) -> StoredAnswer:
        from pydantic_ai.direct import model_request

        settings, parameters = settings_of(self.target, request, self.timeout_s), parameters_of(request)
        messages = provider_messages(request.messages)
        started = time.perf_counter()
        response = await model_request(
            self._model, messages, model_settings=settings, model_request_parameters=parameters, instrument=False
        )
        latency_ms = (time.perf_counter() - started) * 1000
        used = response.usage
        usage = Usage(used.input_tokens, used.cache_read_tokens, used.cache_write_tokens, used.output_tokens)
        text = chosen_label(response.text or "", request)
        confidence = confidence_of(response.provider_details) if request.wants_confidence else None
        return stored_now(text, response.finish_reason or "", usage, self.price(usage), latency_ms, confidence)


class Asker:
    """`AsyncAsker` for code that is not async: a context manager with its own event loop, reused by every `ask`.

    It cannot be used inside a running event loop.
    """

    def __init__(self, target: Target, **options: Any) -> None:
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

    @property
    def calls_paid(self) -> int:
        """Calls that brought an answer."""
        return self._asker.calls_paid

    @property
    def faults(self) -> dict[str, int]:
        """How many attempts failed, by kind of failure."""
        return dict(self._asker.faults)

    def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """As `AsyncAsker.ask`."""
        return self._runner.run(self._asker.ask(requests, on_reply))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._asker.aclose())
        self._runner.close()


def ask(
    target: Target,
    requests: Sequence[Request],
    *,
    store: ResponseStore,
    price: Callable[[Usage], float],
    meter: Meter | None = None,
    concurrency: int = 8,
    timeout_s: float = 60.0,
    attempts: int = 5,
    on_reply: Callable[[Reply], None] | None = None,
) -> list[Reply]:
    """Ask once and close; see `AsyncAsker` for what each option does. For many looks keep an `Asker`."""
    options: dict[str, Any] = {"store": store, "price": price, "meter": meter, "concurrency": concurrency}
    with Asker(target, timeout_s=timeout_s, attempts=attempts, **options) as asker:
        return asker.ask(requests, on_reply)


@dataclass(frozen=True)
class _Failure:
    """A call that brought no complete answer; `billed` when the provider may charge for it all the same."""

    message: str
    retry: bool
    billed: bool
    kind: str = ""
    rate_limited: bool = False
    retry_after_s: float | None = None


def _failure(error: BaseException) -> _Failure | None:
    """What an exception says about a call; None if it is no failure of the transport (a defect, a cancellation)."""
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, ModelQuotaExceededError, UnexpectedModelBehavior

    message = f"{type(error).__name__}: {error}"[:500]
    if isinstance(error, ModelHTTPError):
        status = error.status_code
        retry = (status in RETRIED_STATUSES or status >= 500) and not isinstance(error, ModelQuotaExceededError)
        return _Failure(message, retry, False, str(status), status == 429, error.retry_after)
    if isinstance(error, ModelAPIError):
        if refused := _never_connected(error):
            return _Failure(f"nobody listens there: {refused}"[:500], True, False, UNREACHABLE)
        return _Failure(message, True, True, "transport")
    # An envelope of the wrong shape surfaces as whatever the SDK trips over first.
    if isinstance(error, (UnexpectedModelBehavior, LookupError, TypeError, ValueError, AttributeError)):
        return _Failure(message, True, True, "envelope")
    return None


def _never_connected(error: BaseException) -> BaseException | None:
    """What kept a call from being sent at all; the SDKs wrap it, aiohttp's even as a timeout."""
    cause: BaseException | None = error
    while cause is not None:
        name = type(cause).__name__
        if "ConnectError" in name or "ConnectorError" in name or isinstance(cause, ConnectionRefusedError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


async def _drain(work: deque[Coroutine[Any, Any, None]], workers: int) -> None:
    """Run coroutines in order, `workers` at a time; after the first error start no more, but finish those started."""
    errors: list[BaseException] = []

    async def worker() -> None:
        while work and not errors:
            try:
                await work.popleft()
            except Exception as error:
                errors.append(error)

    try:
        await asyncio.gather(*(worker() for _ in range(min(workers, len(work)))))
    finally:
        for never_started in work:
            never_started.close()
    if errors:
        raise errors[0]


def reply_of(request: Request, answer: StoredAnswer, *, from_store: bool) -> Reply:
    """An answer as a reply to this request."""
    tokens = asdict(answer.usage)
    return Reply(
        row_id=request.row_id,
        text=answer.text,
        latency_ms=answer.latency_ms,
        usd=answer.usd,
        from_store=from_store,
        error=None,
        finish_reason=answer.finish_reason,
        confidence=answer.confidence,
        **tokens,
    )


def lost(request: Request, error: str | None) -> Reply:
    """What stands for an answer that the infrastructure lost."""
    return Reply(request.row_id, "", math.nan, 0, 0, 0, 0, 0.0, False, error or "lost", "error")
