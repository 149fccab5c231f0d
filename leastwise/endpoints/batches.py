"""Asks a provider through its batch interface: about half the price, for work that can wait up to a day.

It renders no prompt, scores nothing and measures no latency: a batch answer has none, so it is kept under a key of its
own and never stands in for an answer that is timed. Every job is noted before it is waited for, so that a process that
was killed meanwhile collects in its next run what it has paid for.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.endpoints.asking import parameters_of, provider_messages, settings_of
from leastwise.endpoints.failure import Failure, Wire
from leastwise.endpoints.providers import Connection, connected_for_batches
from leastwise.endpoints.reading import answer_read, outcome_of
from leastwise.endpoints.received import body_of
from leastwise.endpoints.reply import Reply, Till, lost, reply_of
from leastwise.endpoints.request import PROVIDERS, Request, Target, request_key
from leastwise.errors import BadInput
from leastwise.part import written_but_for
from leastwise.stores.answer_store import ResponseStore, StoredAnswer, answer_key
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import Meter
from leastwise.stores.sqlite_file import open_wal
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.models.batch import Batch, BatchRequest, BatchResult

FIRST_POLL_S, LONGEST_POLL_S = 5.0, 300.0
A_DAY_S = 86_400.0
MOST_REQUESTS, MOST_BYTES, BYTES_A_REQUEST = 10_000, 15_000_000, 1_000  # of one job

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, handle TEXT NOT NULL, keys TEXT NOT NULL,
    collected INTEGER NOT NULL DEFAULT 0
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

    Every request's worst case is reserved before the first job is created: BudgetExceeded creates none. What the
    provider did not run or answered with an error is a lost reply and is not stored. `jobs` is the file that notes
    open jobs.
    """
    pace = _Pace(first_poll_s or FIRST_POLL_S, patience_s)
    return asyncio.run(_asked(target, requests, _Books(store, Till(meter, price)), jobs, pace))


@dataclass(frozen=True)
class _Books:
    """Where answers are kept, what they cost and who pays."""

    store: ResponseStore
    till: Till


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
        async with connected_for_batches(target) as connection:
            with closing(open_wal(jobs, SCHEMA)) as notes:
                failures = await _collected(_Collector(connection, books, notes, pace), target, missing)
    answers = books.store.get_many(list(by_key))
    return [
        reply_of(request, answers[key], books.till.price, from_store=key in before)
        if key in answers
        else lost(request, failures.get(key, "the batch brought no answer"))
        for key, request in zip(keys, requests, strict=True)
    ]


async def _collected(collect: _Collector, target: Target, missing: dict[str, Request]) -> dict[str, str]:
    """Collect what earlier jobs bring, buy the rest; gives back why a request has no answer, by key."""
    failures: dict[str, str] = {}
    left = dict(missing)
    for handle, keys in _open_jobs(collect.notes, target):
        own = {key: left.pop(key) for key in keys if key in left}
        if own:
            failures |= await collect.wait(handle, own, {})
    return failures | await _bought(collect, target, left) if left else failures


async def _bought(collect: _Collector, target: Target, missing: dict[str, Request]) -> dict[str, str]:
    """Create as many jobs as the requests need, all before the first is waited for; all is reserved before any."""
    books, reserved = collect.books, {}
    encoded = {
        key: await collect.connection.model.batch_encode(_batch_request(target, key, r)) for key, r in missing.items()
    }
    waiting: list[tuple[Batch, list[str]]] = []
    job: list[str] = []
    try:
        for key, request in missing.items():
            if (reservation := books.till.reserve(request)) is not None:
                reserved[key] = reservation
        for job in _jobs(missing):
            handle = await collect.connection.model.batch_create([encoded[key] for key in job])
            _note(collect.notes, target, handle, job)
            waiting.append((handle, job))
    except BaseException as error:
        running = {key for _, keys in waiting for key in keys} | (set(job) if _may_run(error) else set())
        for key, reservation in reserved.items():
            books.till.close(reservation, is_billed=key in running)
        raise
    failures: dict[str, str] = {}
    for handle, keys in waiting:
        own = {key: reserved.pop(key) for key in keys if key in reserved}
        try:
            failures |= await collect.wait(handle, {key: missing[key] for key in keys}, own)
        except BaseException:
            for reservation in reserved.values():  # of jobs not waited for any more: they run on and are billed
                books.till.close(reservation, is_billed=True)
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
    from pydantic_ai.exceptions import ModelHTTPError

    if isinstance(error, ModelHTTPError):
        return error.status_code >= 500
    return not isinstance(error, BudgetExceeded)


class _Collector:
    """Waits for jobs and stores what they brought."""

    def __init__(self, connection: Connection, books: _Books, notes: sqlite3.Connection, pace: _Pace) -> None:
        self.connection, self.books, self.notes, self.pace = connection, books, notes, pace

    async def wait(self, handle: Batch, requests: dict[str, Request], reserved: dict[str, int]) -> dict[str, str]:
        """Wait for a job, store its answers and settle what was reserved; gives back why a request has none, by key.

        A job of a process that died has no reservation left: the ledger counted it at its worst when it found that out.
        """
        try:
            handle = await self._ended(handle)
            results = await self.connection.model.batch_results(handle)
        except BaseException:
            # It goes on running and will be billed, whether or not somebody waits.
            for reservation in reserved.values():
                self.books.till.close(reservation, is_billed=True)
            raise
        failures: dict[str, str] = {}
        errors: list[Exception] = []
        for result in results:
            if result.custom_id in requests:
                try:
                    failures |= self._kept(result, requests[result.custom_id], reserved.pop(result.custom_id, None))
                except Exception as error:  # a cap that is passed, say: the others are there and paid all the same
                    errors.append(error)
        for reservation in reserved.values():
            self.books.till.close(reservation, is_billed=False)
        self.notes.execute("UPDATE jobs SET collected = 1 WHERE id = ?", (handle.id,))
        if errors:
            raise errors[0]
        return failures

    def _kept(self, result: BatchResult, request: Request, reservation: int | None) -> dict[str, str]:
        """Store and settle one answer; gives back by its key why there is none."""
        answer = self._decoded(result, request)
        if isinstance(answer, StoredAnswer):
            self.books.store.put(result.custom_id, answer)
            self.books.till.settle(reservation, request, answer)
            return {}
        # What came and holds no answer is billed all the same.
        self.books.till.close(reservation, is_billed=result.status == "succeeded")
        return {result.custom_id: answer.message}

    async def _ended(self, handle: Batch) -> Batch:
        started, pause_s = time.monotonic(), self.pace.first_poll_s
        while handle.status != "ended":
            if time.monotonic() - started > self.pace.patience_s:
                raise TimeoutError(
                    f"batch {handle.id} has not ended after {self.pace.patience_s:.0f} s; run again to go on waiting"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s)
            handle = await self.connection.model.batch_status(handle)
        return handle

    def _decoded(self, result: BatchResult, request: Request) -> StoredAnswer | Failure:
        """As a call of its own is read, by the same rules (see `leastwise.endpoints.reading`)."""
        wire = _wire_of(result)
        try:
            response = self.connection.model.batch_decode(result, _batch_request(None, result.custom_id, request))
        except Exception as error:
            outcome = outcome_of(error, wire, request, 0.0)
            if outcome is None:
                raise
            return outcome
        return answer_read(response, wire, request, 0.0)


def _wire_of(result: BatchResult) -> Wire:
    """One line of a batch as if it had come over the wire alone."""
    body = body_of(result.body)
    if result.status == "succeeded" or not isinstance(body, dict):
        return Wire(True, True, 200 if result.status == "succeeded" else 400, (result.body or "").encode())
    status, inner = body.get("status_code"), body.get("body", body)
    return Wire(True, True, status if isinstance(status, int) else 400, json.dumps(inner).encode())


def _batch_request(target: Target | None, key: str, request: Request) -> BatchRequest:
    from pydantic_ai.models.batch import BatchRequest

    return BatchRequest(
        custom_id=key,
        messages=provider_messages(request.messages, target.habits if target else None),
        model_settings=settings_of(target, request, None) if target else None,
        model_request_parameters=parameters_of(request, target),
    )


def _note(notes: sqlite3.Connection, target: Target, handle: Batch, keys: list[str]) -> None:
    from pydantic import TypeAdapter
    from pydantic_ai.models.batch import Batch

    text = TypeAdapter(Batch).dump_json(handle).decode()
    notes.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, 0)", (handle.id, _name(target), text, json.dumps(keys)))


def _open_jobs(notes: sqlite3.Connection, target: Target) -> list[tuple[Batch, list[str]]]:
    from pydantic import TypeAdapter
    from pydantic_ai.models.batch import Batch

    query = "SELECT handle, keys FROM jobs WHERE target = ? AND collected = 0"
    rows = notes.execute(query, (_name(target),)).fetchall()
    return [(TypeAdapter(Batch).validate_json(handle), json.loads(keys)) for handle, keys in rows]


def _name(target: Target) -> str:
    named = ("uri", "revision", "model", "base_url", "provider_cache", "is_own")
    return answer_key(**written_but_for({name: getattr(target, name) for name in named}, is_own=False))


def is_offered(target: Target) -> bool:
    """Whether whoever is asked has a batch interface that is spoken here: the three providers."""
    return target.uri.startswith(tuple(f"{provider}:" for provider in PROVIDERS))
