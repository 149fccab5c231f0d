"""A provider's batch jobs: made, noted, awaited and fetched, with every failure in our words.

Every job is noted before it is waited for, so that a process that was killed meanwhile collects in its next run what it
has paid for. It reads no answer and knows no money (see `leastwise.endpoints.batches`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from leastwise.endpoints.bodies import body_of
from leastwise.endpoints.failure import NO_ANSWER, Failure, Wire, failure_of, failure_told, shown, watched
from leastwise.endpoints.providers import Connection
from leastwise.endpoints.request import Target
from leastwise.errors import BadInput
from leastwise.part import written_but_for
from leastwise.stores.answer_store import answer_key
from leastwise.stores.shared.jobs import Job
from leastwise.stores.shared.jobs import Jobs as Notes

if TYPE_CHECKING:
    from pydantic_ai.models.batch import Batch, BatchResult, EncodedBatchRequest

T = TypeVar("T")
A_DAY_S = 86_400.0
FIRST_POLL_S, LONGEST_POLL_S = 5.0, 300.0
MOST_FAILURES = 8  # in a row: about ten minutes of an outage
ENDED_UNRUN = "ended unrun"
NO_INTERFACE = frozenset({"404", "405", "501"})
ONE_BY_ONE = "set training.label_in_batches: false to have it asked one by one"


@dataclass(frozen=True)
class Pace:
    """How often a job is looked at, and how long it is waited for; seconds."""

    first_poll_s: float = FIRST_POLL_S
    patience_s: float = A_DAY_S


@dataclass(frozen=True)
class Jobs:
    """The jobs of one target; `notes` is where they are noted."""

    target: Target
    connection: Connection
    notes: Notes
    pace: Pace

    async def create(self, encoded: Sequence[EncodedBatchRequest], keys: Sequence[str]) -> Batch:
        """Make and note a job. BadInput where it was refused, so that none was made; ConnectionError where one may run
        all the same, without a handle that would tell.
        """
        made = await self._patiently(
            lambda: self.connection.model.batch_create(list(encoded)), lambda failure: failure.is_rate_limited
        )
        if not isinstance(made, Failure):
            self.notes.note(_noted(self.target, made, keys))
            return made
        if made.is_retried and not made.is_rate_limited:
            raise ConnectionError(f"{self.target.shown}: a batch may have been made or not ({made.message}); run again")
        raise BadInput(f"{self.target.shown}: no batch was made: {_remedy_of_creation(made)} ({made.message})")

    def open(self) -> list[tuple[Batch, list[str]]]:
        """The jobs that are noted and not collected yet, each with the keys of its requests."""
        from pydantic import TypeAdapter
        from pydantic_ai.models.batch import Batch

        waiting = self.notes.waiting(_name(self.target))
        return [(TypeAdapter(Batch).validate_json(each.handle), list(each.keys)) for each in waiting]

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else makes jobs for this target while the block runs."""
        return self.notes.turn(_name(self.target))

    async def results(self, job: Batch) -> list[BatchResult] | Failure:
        """Wait for a job and fetch what it brought; a Failure where it ended without any of its requests having run.

        BadInput where a person must put something right first, TimeoutError or ConnectionError where it is to be looked
        for again later: it is noted, and none of its requests is asked again.
        """
        started, pause_s = time.monotonic(), self.pace.first_poll_s
        while job.status != "ended":
            if time.monotonic() - started > self.pace.patience_s:
                raise TimeoutError(
                    f"batch {job.id} has not ended after {self.pace.patience_s:.0f} s; run again to go on waiting"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s)
            job = self._seen(job, await self._patiently(partial(self.connection.model.batch_status, job), _passes))
        brought = await self._patiently(partial(self.connection.model.batch_results, job), _passes)
        return brought if isinstance(brought, Failure) and brought.kind == ENDED_UNRUN else self._seen(job, brought)

    def note_collected(self, job: Batch) -> None:
        """It need not be looked for again."""
        self.notes.note_collected(_name(self.target), job.id)

    async def _patiently(
        self, call: Callable[[], Awaitable[T]], is_tried_again: Callable[[Failure], bool]
    ) -> T | Failure:
        """What a call brings, tried again where that is no second purchase."""
        pause_s, left = self.pace.first_poll_s, MOST_FAILURES
        while True:
            brought, left = await _tried(call), left - 1
            if not isinstance(brought, Failure) or not is_tried_again(brought) or not left:
                return brought
            await asyncio.sleep(min(LONGEST_POLL_S, brought.retry_after_s or pause_s))
            pause_s *= 2

    def _seen(self, job: Batch, seen: T | Failure) -> T:
        """What was seen of a job; it goes on there whether or not somebody looks."""
        if not isinstance(seen, Failure):
            return seen
        if seen.is_retried:
            raise ConnectionError(
                f"{self.target.shown}: batch {job.id} cannot be looked at ({seen.message}); it goes on there, run again"
            )
        raise BadInput(f"{self.target.shown}: batch {job.id}: {self._remedy_of_look(job, seen)} ({seen.message})")

    def _remedy_of_look(self, job: Batch, failure: Failure) -> str:
        if failure.kind == "404":
            return (
                "it is not known there: set the key of the account that made it; or where it is gone for good, "
                f"{self.notes.forgetting(job.id)}, and what it was asked is asked and paid anew"
            )
        return failure.remedy or "it cannot be fetched; it is noted, and is collected by a later run"


def _passes(failure: Failure) -> bool:
    return failure.is_retried and failure.kind != ENDED_UNRUN


async def _tried(call: Callable[[], Awaitable[T]]) -> T | Failure:
    """What a call brought, or its failure in our words; an error of our own is raised."""
    with watched() as wire:
        try:
            return await call()
        except Exception as error:
            failure = _failure(error, wire)
            if failure is None:
                raise
            return failure


def _failure(error: Exception, wire: Wire) -> Failure | None:
    """As of a single call; also what the provider layer hands on from an SDK as it is, and lines that are cut off."""
    from pydantic_ai.models._batch_codec import BatchJobError

    message = shown(f"{type(error).__name__}: {error}")
    if isinstance(error, BatchJobError):
        is_again = error.status_code >= 499
        return Failure(message, is_again, False, ENDED_UNRUN)
    if failure := failure_of(error, wire):
        return failure
    if wire.was_sent and wire.status >= 400:
        return failure_told(wire.status, body_of(wire.body), message)
    return Failure(message, True, False, NO_ANSWER) if wire.was_answered and isinstance(error, ValueError) else None


def _remedy_of_creation(failure: Failure) -> str:
    if failure.kind in NO_INTERFACE:
        return f"there may be no batch interface at this address, or no such model; {ONE_BY_ONE}, or check both"
    if failure.is_rate_limited:
        return f"the provider takes no more of them now; run again later, or {ONE_BY_ONE}"
    return failure.remedy or ONE_BY_ONE


def _noted(target: Target, handle: Batch, keys: Sequence[str]) -> Job:
    from pydantic import TypeAdapter
    from pydantic_ai.models.batch import Batch

    return Job(handle.id, _name(target), TypeAdapter(Batch).dump_json(handle).decode(), tuple(keys))


def _name(target: Target) -> str:
    named = ("uri", "revision", "model", "base_url", "provider_cache", "is_own")
    return answer_key(**written_but_for({name: getattr(target, name) for name in named}, is_own=False))
