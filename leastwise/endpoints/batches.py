"""Asks a provider through its batch interface: about half the price, for work that can wait up to a day.

It renders no prompt, scores nothing and measures no latency: a batch answer has none, so it is kept under a key of its
own and never stands in for an answer that is timed; an answer that was timed stands in for one of a batch. Jobs are
made and fetched in `leastwise.endpoints.batch_jobs`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leastwise.endpoints.asking import parameters_of, provider_messages, settings_of
from leastwise.endpoints.batch_jobs import A_DAY_S, FIRST_POLL_S, Jobs, Pace
from leastwise.endpoints.bodies import body_of
from leastwise.endpoints.clients.known import MAKERS
from leastwise.endpoints.failure import Failure, Wire
from leastwise.endpoints.providers import connected_for_batches
from leastwise.endpoints.reading import answer_read, outcome_of
from leastwise.endpoints.reply import Reply, Till, lost, reply_of
from leastwise.endpoints.request import Request, Target, request_key
from leastwise.errors import BadInput
from leastwise.stores.answer_store import Answers, StoredAnswer, answer_key
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import Meter
from leastwise.stores.shared.jobs import Jobs as Notes
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.models.batch import Batch, BatchRequest, BatchResult

MOST_REQUESTS, MOST_BYTES, BYTES_A_REQUEST = 10_000, 15_000_000, 1_000  # of one job
ROUNDS = 2  # what a job did not come to is asked once more
NOT_THERE = Failure("the batch brought no answer", is_retried=True, is_billed=True)

Failures = dict[str, Failure]  # why a request has no answer, by its key
Work = Callable[["_Collector", Mapping[str, Request]], Awaitable[Failures]]
Meet = Callable[[Request], Target]  # asks one request alone and gives back who is asked, with what was found out


def batch_key(target: Target, request: Request) -> str:
    """The key a batch answer is stored under."""
    return answer_key(batch_of=request_key(target, request))


def ask_in_batch(
    target: Target,
    requests: Sequence[Request],
    *,
    store: Answers,
    price: Callable[[Usage], float],
    meter: Meter | None,
    jobs: Notes,
    meet: Meet | None = None,
    first_poll_s: float | None = None,
    patience_s: float = A_DAY_S,
) -> list[Reply]:
    """Replies in the order of the requests, from the store where it has them; `price` is the batch price.

    What earlier jobs bring comes first; then `meet` asks one of the rest alone, so that no job of thousands is refused
    for the way it is asked; then the rest is bought, and what a job did not come to (expired, cancelled, not in its
    file) once more. Every request's worst case is reserved before the first job is made: BudgetExceeded makes none.
    What the provider answered with an error is a lost reply and is not stored. `jobs` is where jobs are noted: one
    that somebody else has running for these requests is waited for, and not bought a second time.
    """
    batch = _Batching(store, Till(meter, price), jobs, Pace(first_poll_s or FIRST_POLL_S, patience_s))
    before = set(batch.held(target, requests))
    failures: Failures = {}
    if left := batch.left(target, requests, failures):
        if not is_offered(target):
            raise BadInput(f"{target.uri}: has no batch interface; ask it one by one")
        failures |= batch.over(target, _Collector.collected, left)
        if meet and (rest := batch.left(target, requests, failures)):
            target = meet(next(iter(rest.values())))
    for _ in range(ROUNDS):
        if left := batch.left(target, requests, failures):
            failures |= batch.over(target, _Collector.bought, left)
    held = batch.held(target, requests)
    _require_answers(target, len(held), failures)
    return [
        reply_of(request, held[key], price, from_store=key in before)
        if (key := batch_key(target, request)) in held
        else lost(request, failures.get(key, NOT_THERE).message)
        for request in requests
    ]


def _require_answers(target: Target, answers: int, failures: Failures) -> None:
    """BadInput where nothing was answered, for a reason that a person can put right."""
    told = next((failure for failure in failures.values() if failure.remedy), None)
    if told and not answers:
        raise told.refused(target.shown)


@dataclass(frozen=True)
class _Batching:
    """Where answers are kept, who pays, and where jobs are noted."""

    store: Answers
    till: Till
    notes: Notes
    pace: Pace

    def held(self, target: Target, requests: Sequence[Request]) -> dict[str, StoredAnswer]:
        """The answers there are, by the keys of a batch; one that was bought alone is as good."""
        keys = {batch_key(target, request): request_key(target, request) for request in requests}
        alone = self.store.get_many(list(keys.values()))
        return {key: alone[own] for key, own in keys.items() if own in alone} | self.store.get_many(list(keys))

    def left(self, target: Target, requests: Sequence[Request], failures: Failures) -> dict[str, Request]:
        """The requests without an answer, but for those that asking again would not help."""
        held, by_key = self.held(target, requests), {batch_key(target, request): request for request in requests}
        return {
            key: request
            for key, request in by_key.items()
            if key not in held and (key not in failures or failures[key].is_retried)
        }

    def over(self, target: Target, work: Work, missing: Mapping[str, Request]) -> Failures:
        """Do this over a connection to the target."""

        async def connected() -> Failures:
            async with connected_for_batches(target) as connection:
                jobs = Jobs(target, connection, self.notes, self.pace)
                return await work(_Collector(jobs, self.store, self.till), missing)

        return asyncio.run(connected())


def _jobs(missing: Mapping[str, Request]) -> list[list[str]]:
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


class _Collector:
    """Buys jobs, waits for them and stores what they brought."""

    def __init__(self, jobs: Jobs, store: Answers, till: Till) -> None:
        self.jobs, self.store, self.till = jobs, store, till
        self.model = jobs.connection.model

    async def collected(self, missing: Mapping[str, Request]) -> Failures:
        """Collect of these what earlier jobs bring."""
        failures: Failures = {}
        for handle, keys in self._running(missing):
            failures |= await self._wait(handle, {key: missing[key] for key in keys}, {})
        return failures

    def _running(self, missing: Mapping[str, Request]) -> list[tuple[Batch, list[str]]]:
        """The jobs that bring some of these, each with those."""
        jobs = ((handle, [key for key in keys if key in missing]) for handle, keys in self.jobs.open())
        return [(handle, keys) for handle, keys in jobs if keys]

    async def bought(self, missing: Mapping[str, Request]) -> Failures:
        """Make as many jobs as the requests need, all before the first is waited for; what others made meanwhile is
        waited for too.
        """
        reserved: dict[str, int] = {}
        with self.jobs.turn():
            waiting = self._running(missing)
            theirs = {key for _, keys in waiting for key in keys} | self.store.get_many(list(missing)).keys()
            if mine := {key: request for key, request in missing.items() if key not in theirs}:
                waiting = await self._made(mine, reserved) + waiting
        failures: Failures = {}
        for handle, keys in waiting:
            own = {key: reserved.pop(key) for key in keys if key in reserved}
            try:
                failures |= await self._wait(handle, {key: missing[key] for key in keys}, own)
            except BaseException:
                for reservation in reserved.values():  # of jobs not waited for any more: they run on and are billed
                    self.till.close(reservation, is_billed=True)
                raise
        return failures

    async def _made(self, missing: Mapping[str, Request], reserved: dict[str, int]) -> list[tuple[Batch, list[str]]]:
        """Make the jobs; all is reserved before any."""
        target = self.jobs.target
        encoded = {key: await self.model.batch_encode(_batch_request(target, key, r)) for key, r in missing.items()}
        waiting: list[tuple[Batch, list[str]]] = []
        job: list[str] = []
        try:
            reserved |= zip(missing, self.till.reserve_all(missing.values()), strict=False)  # free calls have none
            for job in _jobs(missing):
                waiting.append((await self.jobs.create([encoded[key] for key in job], job), job))
        except BaseException as error:
            was_refused = isinstance(error, BadInput | BudgetExceeded)
            running = {key for _, keys in waiting for key in keys} | (set() if was_refused else set(job))
            for key, reservation in reserved.items():
                self.till.close(reservation, is_billed=key in running)
            raise
        return waiting

    async def _wait(self, handle: Batch, requests: Mapping[str, Request], reserved: dict[str, int]) -> Failures:
        """Wait for a job, store its answers and settle what was reserved.

        A job of a process that died has no reservation left: the ledger counted it at its worst when it found that out.
        """
        try:
            results = await self.jobs.results(handle)
        except BaseException:
            # It goes on running and will be billed, whether or not somebody waits.
            for reservation in reserved.values():
                self.till.close(reservation, is_billed=True)
            raise
        failures: Failures = dict.fromkeys(requests, results if isinstance(results, Failure) else NOT_THERE)
        errors: list[Exception] = []
        for result in [] if isinstance(results, Failure) else results:
            if result.custom_id in requests:
                try:
                    failure = self._kept(result, requests[result.custom_id], reserved.pop(result.custom_id, None))
                except Exception as error:  # a cap that is passed, say: the others are there and paid all the same
                    failure = None
                    errors.append(error)
                failures.pop(result.custom_id, None)
                failures |= {result.custom_id: failure} if failure else {}
        for key, reservation in reserved.items():
            self.till.close(reservation, is_billed=failures[key].is_billed)
        self.jobs.note_collected(handle)
        if errors:
            raise errors[0]
        return failures

    def _kept(self, result: BatchResult, request: Request, reservation: int | None) -> Failure | None:
        """Store and settle one answer; gives back why there is none."""
        answer = self._decoded(result, request)
        if isinstance(answer, StoredAnswer):
            self.store.put(result.custom_id, answer)
            self.till.settle(reservation, request, answer)
            return None
        # What came and holds no answer is billed all the same, and is not bought again.
        is_billed = result.status == "succeeded"
        self.till.close(reservation, is_billed=is_billed)
        return replace(answer, is_billed=is_billed, is_retried=answer.is_retried and not is_billed)

    def _decoded(self, result: BatchResult, request: Request) -> StoredAnswer | Failure:
        """As a call of its own is read, by the same rules (see `leastwise.endpoints.reading`)."""
        wire = _wire_of(result)
        try:
            response = self.model.batch_decode(result, _batch_request(None, result.custom_id, request))
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


def is_offered(target: Target) -> bool:
    """Whether whoever is asked has a batch interface that is spoken here: the three providers."""
    return target.uri.startswith(tuple(f"{provider}:" for provider in MAKERS))
