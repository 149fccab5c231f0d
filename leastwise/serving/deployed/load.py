"""A running endpoint asked by closed loops of growing concurrency, over HTTP as anybody asks it.

What it asks is marked with the key that whoever started the endpoint knows: it is no traffic, and is logged apart. It
decides no price (see `leastwise.money.load`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import aiohttp

from leastwise.money.capacity import requests_at
from leastwise.money.load import Carried, Level, next_level
from leastwise.serving.web.admission import LOAD_HEADER

MOST_REQUESTS = 5_000  # of one level
LONGEST_S = 30.0  # of one level, and of an answer; what takes longer is lost


@dataclass(frozen=True)
class Asked:
    """Which endpoint is asked and how. `key`: one that opens it, where it has any; `load_key`: the key of whoever
    started it.
    """

    url: str
    name: str
    load_key: str = ""
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        opened = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {LOAD_HEADER: self.load_key} | opened


@dataclass
class _Loop:
    """A level while it runs."""

    session: aiohttp.ClientSession
    asked: Asked
    texts: Iterator[str]
    least: int
    seconds: float
    began: float = field(default_factory=time.perf_counter)
    took_s: float = 0.0
    answered: int = 0
    latencies: list[float | None] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.took_s > 0

    async def ask(self) -> None:
        """One caller: the next text once the last is answered."""
        while not self.is_over and (text := next(self.texts, None)) is not None:
            self._count(await _ask(self.session, self.asked, text))

    def _count(self, latency_ms: float | None) -> None:
        self.latencies.append(latency_ms)
        if self.is_over:
            return
        took, done = time.perf_counter() - self.began, len(self.latencies)
        self.answered += latency_ms is not None
        if (took >= self.seconds and done >= self.least) or done >= MOST_REQUESTS or took >= LONGEST_S:
            self.took_s = took


def carried(
    asked: Asked, texts: Sequence[str], bound_ms: float | None, most: int, seconds: float, repeats: bool = True
) -> Carried:
    """What an endpoint carries: levels of at least `seconds` and some dozen requests, twice the concurrency each time,
    until more is not worth it or `most` are in flight. Each text is asked once; then again from the first where it
    `repeats`, else that is the end.
    """
    with ThreadPoolExecutor(1) as aside:  # a flow may run in an event loop of its own
        work = _levels(asked, texts, bound_ms, most, seconds, repeats)
        return Carried(tuple(aside.submit(asyncio.run, work).result()), bound_ms)


async def _levels(
    asked: Asked, texts: Sequence[str], bound_ms: float | None, most: int, seconds: float, repeats: bool
) -> list[Level]:
    levels: list[Level] = []
    source = itertools.cycle(texts) if repeats else iter(texts)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(LONGEST_S)
    ) as session:
        await _ask(session, asked, next(source, "Are you there?"))
        while (concurrency := next_level(levels, bound_ms, most)) is not None:
            level = await _level(session, asked, source, concurrency, seconds)
            if not level.latencies_ms:  # nothing is left to ask
                break
            levels.append(level)
    return levels


async def _level(
    session: aiohttp.ClientSession, asked: Asked, texts: Iterator[str], concurrency: int, seconds: float
) -> Level:
    loop = _Loop(session, asked, texts, requests_at(concurrency, MOST_REQUESTS), seconds)
    await asyncio.gather(*(loop.ask() for _ in range(concurrency)))
    took = loop.took_s or time.perf_counter() - loop.began
    return Level(concurrency, tuple(loop.latencies), took, loop.answered)


async def _ask(session: aiohttp.ClientSession, asked: Asked, text: str) -> float | None:
    """Milliseconds until it was answered; None where it was not."""
    body = {"model": asked.name, "messages": [{"role": "user", "content": text}]}
    began = time.perf_counter()
    try:
        async with session.post(f"{asked.url}/v1/chat/completions", json=body, headers=asked.headers) as reply:
            await reply.read()
            return (time.perf_counter() - began) * 1000 if reply.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
