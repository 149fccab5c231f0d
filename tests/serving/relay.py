"""A version that answers by asking a real server on this machine, for tests of the endpoint in front of it."""

import asyncio
import itertools
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web

from leastwise.metrics.answer import Answer
from tests.servers.web_server import served

ADDRESS = "LEASTWISE_TEST_ENGINE"


class Relay:
    """One version, which asks the engine at ADDRESS."""

    mask: tuple[str, ...] = ()

    def __init__(self, version: str, session: aiohttp.ClientSession) -> None:
        self.version, self.key, self._session = version, f"key-{version}", session

    async def answer(self, text: str) -> Answer:
        url = f"{os.environ[ADDRESS]}/answer/{self.version}"
        async with self._session.post(url, json={"text": text}) as reply:
            if reply.status == 413:
                return Answer(None, None, 0.0, error="there is no room for the text", finish_reason="length")
            if reply.status != 200:
                return Answer(None, None, 0.0, error=f"{url} with key sk-abcdefghijklmnop said {reply.status}")
            said = json.loads(await reply.text())
        label = "yes" if "yes" in text else None
        told = Answer(said["text"], 1.0, 0.001, input_tokens=7, cached_tokens=2, output_tokens=1, confidence=0.5)
        return replace(told, label=label)

    async def aclose(self) -> None:
        await self._session.post(f"{os.environ[ADDRESS]}/close/{self.version}")
        await self._session.close()


async def open_version(name: str, version: str) -> Relay:
    """Open a version; the engine may refuse it."""
    session = aiohttp.ClientSession()
    async with session.post(f"{os.environ[ADDRESS]}/open/{version}") as reply:
        if reply.status != 200:
            await session.close()
            raise RuntimeError(f"version {version} of {name} has no weights, says sk-abcdefghijklmnop")
    return Relay(version, session)


@dataclass
class Engine:
    """What the engine was asked, and how it answers: `echo` unless a text asks for something else."""

    address: str = ""
    delay_s: float = 0.0
    broken: set[str] = field(default_factory=set)  # versions that do not open
    asked: list[tuple[str, str]] = field(default_factory=list)
    in_flight: dict[str, int] = field(default_factory=dict)
    closed: list[tuple[str, int]] = field(default_factory=list)  # a version, and how much of it was in flight
    numbers: Iterator[int] = field(default_factory=itertools.count)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def answer(self, request: web.Request) -> web.Response:
        version, text = request.match_info["version"], (await request.json())["text"]
        with self.lock:
            self.asked.append((version, text))
            self.in_flight[version] = self.in_flight.get(version, 0) + 1
        try:
            await asyncio.sleep(1.0 if "slow" in text else self.delay_s)
        finally:
            with self.lock:
                self.in_flight[version] -= 1
        if "too long" in text:
            return web.Response(status=413)
        if "fail" in text:
            return web.Response(status=500)
        said = "\ud800" if "half" in text else f"{version}: {text}"
        return web.Response(text=json.dumps({"text": said}), content_type="application/json")

    async def open(self, request: web.Request) -> web.Response:
        return web.Response(status=500 if request.match_info["version"] in self.broken else 200)

    async def close(self, request: web.Request) -> web.Response:
        version = request.match_info["version"]
        self.closed.append((version, self.in_flight.get(version, 0)))
        return web.Response()


@contextmanager
def running_engine() -> Iterator[Engine]:
    """A real engine on this machine, whose address is in the environment."""
    engine = Engine()
    routes = [
        web.post("/answer/{version}", engine.answer),
        web.post("/open/{version}", engine.open),
        web.post("/close/{version}", engine.close),
    ]
    with served(*routes) as address:
        engine.address = os.environ[ADDRESS] = address
        yield engine
    del os.environ[ADDRESS]
