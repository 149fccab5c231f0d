"""One request answered: who answers it, within which time, what is kept of it, and what the challenger is asked beside.

It knows no HTTP (see `leastwise.serving.web`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from leastwise.metrics.answer import Answer
from leastwise.record.published.moves import CHALLENGER, CHAMPION
from leastwise.redaction import redacted
from leastwise.serving.counters import Counters
from leastwise.serving.following import Chosen, Follower, share_of
from leastwise.serving.live import TOO_LONG
from leastwise.serving.settings import EndpointSettings
from leastwise.serving.traffic import Allowance, Answered, Traffic

log = logging.getLogger(__name__)

OK, REFUSED, FAILED, TOO_SLOW = 200, 400, 502, 504
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Request:
    """A text to answer. `unit`: whom a split keeps together (user, request or text); `alias`: empty for the split;
    `is_load`: asked to measure the endpoint, and no traffic.
    """

    id: str
    text: str
    unit: str
    alias: str = ""
    is_load: bool = False


class AnsweringService:
    """Everything of one worker that answers requests."""

    def __init__(self, follower: Follower, traffic: Traffic, settings: EndpointSettings, counters: Counters) -> None:
        self.follower, self.traffic, self.settings, self.counters = follower, traffic, settings, counters
        self.is_ending, self._words = False, Allowance(1.0)
        self._shadows: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Answered:
        """The answer, kept, with the id of its trace where it has one."""
        chosen = self._chosen(request)
        done = await self._asked(request, chosen)
        if request.is_load:
            self.traffic.keep_load(done)
            return done
        if chosen.alias == CHAMPION and not request.alias:
            self._shadow(request)
        return self.traffic.keep(done, share_of("trace", request.id))

    async def close(self) -> None:
        """End what is in flight beside requests, close the versions, write what is waiting."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)
        await self.follower.close()
        await asyncio.to_thread(self.traffic.close)

    def _chosen(self, request: Request) -> Chosen:
        named = self.follower.holder(request.alias) if request.alias else None
        return Chosen(request.alias, named) if named else self.follower.chosen(request.unit)

    async def _asked(self, request: Request, chosen: Chosen) -> Answered:
        alias, serving = chosen.alias, chosen.serving
        came, started, status = time.time(), time.perf_counter(), OK
        with serving.asked() as model:
            try:
                async with asyncio.timeout(self.settings.answer_timeout_s):
                    answer = await model.answer(request.text)
            except TimeoutError:
                answer, status = _none("it took too long"), TOO_SLOW
            except Exception as error:
                answer, status = _none(f"{type(error).__name__}: {error}"), FAILED
        seconds = time.perf_counter() - started
        if answer.text is None:
            status = status if status != OK else REFUSED if answer.finish_reason == TOO_LONG else FAILED
            if status != REFUSED and self._words.takes_one():  # an outage is said once a second, not for every request
                why = redacted(str(answer.error))[:SHOWN_CHARACTERS]
                log.warning(f"version {serving.version} did not answer: {why}")
        self.traffic.mask_too(serving.model.mask)
        tokens = (answer.input_tokens, answer.cached_tokens, answer.output_tokens)
        self.counters.answered(alias, seconds, tokens, answer.usd)
        return Answered(
            request_id=request.id,
            text=request.text,
            answer=answer,
            status=status,
            time=came,
            latency_ms=seconds * 1000,
            version=serving.version,
            alias=alias,
            candidate=serving.model.key,
        )

    def _shadow(self, request: Request) -> None:
        """Put the request to the challenger too, without anybody waiting for it."""
        challenger = self.follower.holder(CHALLENGER)
        if challenger is None or share_of("shadow", request.unit) >= self.settings.shadow_share:
            return
        if len(self._shadows) >= self.settings.most_shadows:
            self.counters.shadowed("left_out")
            return
        task = asyncio.create_task(self._shadowed(request, Chosen("shadow", challenger)))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _shadowed(self, request: Request, chosen: Chosen) -> None:
        done = await self._asked(request, chosen)
        self.counters.shadowed("answered" if done.status == OK else "failed")
        self.traffic.keep_shadow(done)


def _none(error: str) -> Answer:
    return Answer(None, None, 0.0, error=error)
