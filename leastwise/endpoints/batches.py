"""Asks a provider through its batch interface: about half the price, for work that can wait up to a day.

It renders no prompt, scores nothing and measures no latency: a batch answer has none, so it is kept under a key of its own
and never stands in for an answer that is timed. Every job is noted before it is waited for, so that a process that was
killed meanwhile collects in its next run what it has paid for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.endpoints.inference import Reply, lost, reply_of, request_key, usd_worst
from leastwise.endpoints.providers import (
    Request,
    Target,
    batch_model_of,
    chosen_label,
    closed_after,
    parameters_of,
    provider_messages,
    settings_of,
)
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore, StoredAnswer, answer_key, stored_now
from leastwise.stores.sqlite_file import open_wal
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import Meter
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.models.batch import Batch, BatchRequest

FIRST_POLL_S, LONGEST_POLL_S = 5.0, 300.0
A_DAY_S = 86_400.0
MOST_REQUESTS, MOST_BYTES, BYTES_A_REQUEST = 10_000, 15_000_000, 1_000  # of one job

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, handle TEXT NOT NULL, keys TEXT NOT NULL, collected INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""


def batch_key(target: Target, request: Request) -> str:
    """The key a batch answer is stored under."""
    return answer_key(batch_of=request_key(target, request))


def ask_in_batch(
    target: Target,
    requests: Sequence[Request],
    *,
    store: ResponseStore,
    price: Callable[[Usage], float],
    meter: Meter | None,
    jobs: Path,
    first_poll_s: float | None = None,
    patience_s: float = A_DAY_S,
) -> list[Reply]:
    """Replies in the order of the requests, from the store where it has them; `price` is the batch price.

    Every request's worst case is reserved before the first job is created: BudgetExceeded creates none. What the provider did
    not run or answered with an error is a lost reply and is not stored. `jobs` is the file that notes open jobs.
    """
    pace = _Pace(first_poll_s or FIRST_POLL_S, patience_s)
    return asyncio.run(_asked(target, requests, _Books(store, price, meter), jobs, pace))


@dataclass(frozen=True)
class _Books:
    """Where answers are kept, what they cost and who pays."""

    store: ResponseStore
    price: Callable[[Usage], float]
    meter: Meter | None

    def close(self, reservation: int | None, answer: StoredAnswer | None, is_billed: bool) -> None:
        """Settle one reservation: at what the answer cost, at its worst where one may be billed, else release it."""
        if self.meter is None or reservation is None:
            return
        if answer:
            self.meter.ledger.settle(reservation, answer.usd, answer.usage)
        elif is_billed:
            self.meter.ledger.settle_at_worst(reservation)
        else:
            self.meter.ledger.release(reservation)


@dataclass(frozen=True)
class _Pace:
    first_poll_s: float
    patience_s: float


async def _asked(target: Target, requests: Sequence[Request], books: _Books, jobs: Path, pace: _Pace) -> list[Reply]:
    keys = [batch_key(target, request) for request in requests]
    by_key = dict(zip(keys, requests, strict=True))
    before = books.store.get_many(list(by_key))
    missing = {key: request for key, request in by_key.items() if key not in before}
    failures: dict[str, str] = {}
    if missing:
        if not is_offered(target):
            raise BadInput(f"{target.uri}: has no batch interface; ask it one by one")
        model = batch_model_of(target)
        async with closed_after(model), _opened(jobs) as notes:
            collect = _Collector(model, books, notes, pace)
            for handle, asked in _open_jobs(notes, target):
                wanted = {key: missing.pop(key) for key in asked if key in missing}
                if wanted:
                    failures |= await collect.wait(handle, wanted, {})
            if missing:
                failures |= await _bought(collect, target, missing)
    found = books.store.get_many(list(by_key))
    return [
        reply_of(request, found[key], from_store=key in before)
        if key in found
        else lost(request, failures.get(key, "the batch brought no answer"))
        for key, request in zip(keys, requests, strict=True)
    ]


@asynccontextmanager
async def _opened(jobs: Path) -> AsyncIterator[Any]:
    with closing(open_wal(jobs, SCHEMA)) as notes:
        yield notes


async def _bought(collect: _Collector, target: Target, missing: dict[str, Request]) -> dict[str, str]:
    """Create as many jobs as the requests need, all before the first is waited for; everything is reserved before any."""
    books, reserved = collect.books, {}
    encoded = {key: await collect.model.batch_encode(_batch_request(target, key, r)) for key, r in missing.items()}
    waiting: list[tuple[Batch, list[str]]] = []
    job: list[str] = []
    try:
        for key, request in missing.items():
            if books.meter:
                reserved[key] = books.meter.reserve(usd_worst(request, books.price))
        for job in _jobs(missing):
            handle = await collect.model.batch_create([encoded[key] for key in job])
            _note(collect.notes, target, handle, job)
            waiting.append((handle, job))
    except BaseException as error:
        running = {key for _, keys in waiting for key in keys} | (set(job) if _may_run(error) else set())
        for key, reservation in reserved.items():
            books.close(reservation, None, is_billed=key in running)
        raise
    failures: dict[str, str] = {}
    for handle, keys in waiting:
        own = {key: reserved.pop(key) for key in keys if key in reserved}
        try:
            failures |= await collect.wait(handle, {key: missing[key] for key in keys}, own)
        except BaseException:
            for reservation in reserved.values():  # of jobs not waited for any more: they run on and are billed
                books.close(reservation, None, is_billed=True)
            raise
    return failures


def _jobs(missing: dict[str, Request]) -> list[list[str]]:
    """Keys in jobs of at most MOST_REQUESTS and about MOST_BYTES, below every provider's limits."""
    jobs: list[list[str]] = [[]]
    size = 0
    for key, request in missing.items():
        more = sum(len(message.content.encode()) for message in request.messages) + BYTES_A_REQUEST
        if jobs[-1] and (len(jobs[-1]) >= MOST_REQUESTS or size + more > MOST_BYTES):
            jobs.append([])
            size = 0
        jobs[-1].append(key)
        size += more
    return jobs


def _may_run(error: BaseException) -> bool:
    """Whether a job may have been created all the same: what was refused was not, what broke off may have been."""
    status = getattr(error, "status_code", None)
    return not isinstance(error, BudgetExceeded) and (status is None or status >= 500)


class _Collector:
    """Waits for jobs and stores what they brought."""

    def __init__(self, model: Model, books: _Books, notes: Any, pace: _Pace) -> None:
        self.model, self.books, self.notes, self.pace = model, books, notes, pace

    async def wait(self, handle: Batch, asked: dict[str, Request], reserved: dict[str, int]) -> dict[str, str]:
        """Wait for a job, store its answers and settle what was reserved; gives back why a request has none, by key.

        A job of a process that died has no reservation left: the ledger counted it at its worst when it found that out.
        """
        try:
            handle = await self._ended(handle)
        except BaseException:
            # It goes on running and will be billed, whether or not somebody waits.
            for reservation in reserved.values():
                self.books.close(reservation, None, is_billed=True)
            raise
        failures: dict[str, str] = {}
        for result in await self.model.batch_results(handle):
            if result.custom_id not in asked:
                continue
            answer = self._decoded(result, asked[result.custom_id])
            kept = answer if isinstance(answer, StoredAnswer) else None
            if kept:
                self.books.store.put(result.custom_id, kept)
            else:
                failures[result.custom_id] = str(answer)
            # An answer that came and cannot be read is billed all the same.
            self.books.close(reserved.pop(result.custom_id, None), kept, is_billed=result.status == "succeeded")
        for reservation in reserved.values():
            self.books.close(reservation, None, is_billed=False)
        self.notes.execute("UPDATE jobs SET collected = 1 WHERE id = ?", (handle.id,))
        return failures

    async def _ended(self, handle: Batch) -> Batch:
        started, pause_s = time.monotonic(), self.pace.first_poll_s
        while handle.status != "ended":
            if time.monotonic() - started > self.pace.patience_s:
                raise TimeoutError(
                    f"batch {handle.id} has not ended after {self.pace.patience_s:.0f} s; run again to go on waiting"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s)
            handle = await self.model.batch_status(handle)
        return handle

    def _decoded(self, result: Any, request: Request) -> StoredAnswer | str:
        from pydantic_ai.exceptions import AgentRunError

        try:
            response = self.model.batch_decode(result, _batch_request(None, result.custom_id, request))
        except (AgentRunError, LookupError, TypeError, ValueError, AttributeError) as error:
            # An envelope of the wrong shape surfaces as whatever the SDK trips over first.
            return f"{type(error).__name__}: {error}"[:500]
        used = response.usage
        usage = Usage(used.input_tokens, used.cache_read_tokens, used.cache_write_tokens, used.output_tokens)
        text = chosen_label(response.text or "", request)
        return stored_now(text, response.finish_reason or "", usage, self.books.price(usage), 0.0)


def _batch_request(target: Target | None, key: str, request: Request) -> BatchRequest:
    from pydantic_ai.models.batch import BatchRequest

    settings: dict[str, Any] = dict(settings_of(target, request, 0.0)) if target else {}
    settings.pop("request_timeout", None)  # a batch has no time of its own for each request
    return BatchRequest(
        custom_id=key,
        messages=provider_messages(request.messages),
        model_settings=settings or None,  # type: ignore[arg-type]
        model_request_parameters=parameters_of(request),
    )


def _note(notes: Any, target: Target, handle: Batch, keys: list[str]) -> None:
    from pydantic import TypeAdapter
    from pydantic_ai.models.batch import Batch

    text = TypeAdapter(Batch).dump_json(handle).decode()
    notes.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, 0)", (handle.id, _name(target), text, json.dumps(keys)))


def _open_jobs(notes: Any, target: Target) -> list[tuple[Batch, list[str]]]:
    from pydantic import TypeAdapter
    from pydantic_ai.models.batch import Batch

    query = "SELECT handle, keys FROM jobs WHERE target = ? AND collected = 0"
    rows = notes.execute(query, (_name(target),)).fetchall()
    return [(TypeAdapter(Batch).validate_json(handle), json.loads(keys)) for handle, keys in rows]


def _name(target: Target) -> str:
    known = {k: v for k, v in asdict(target).items() if k != "api_key"}
    return answer_key(**known)


def is_offered(target: Target) -> bool:
    """Whether whoever is asked has a batch interface that is spoken here: the three providers."""
    return target.uri.startswith(("openai:", "anthropic:", "google:"))
