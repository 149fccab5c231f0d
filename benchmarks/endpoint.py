"""The endpoint beside the engine behind it and beside a plain proxy: latency, throughput, and switches under load.

`python -m benchmarks.endpoint [--quick]`. The engine is a chat server of ours that answers after 50 ms, in a process of
its own; the plain proxy is aiohttp, which only passes bodies on; the endpoint keeps its traffic log and writes no
traces. All three are asked in turn, round after round, by one client, so that ratios hold where the machine's speed
drifts; medians over the rounds are shown. The switches are moves of an alias in a real registry, under load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from leastwise.metrics.answer import Answer
from leastwise.serving.server import endpoint
from leastwise.serving.settings import EndpointSettings

NAME, DELAY_S, MANY = "benchmark", 0.05, 64
ENGINE = "LEASTWISE_BENCHMARK_ENGINE"
BODY = {"model": NAME, "messages": [{"role": "user", "content": "The malware deletes shadow copies. " * 4}]}
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "impact"}}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
}


class Passing:
    """A version that passes its text to the engine."""

    def __init__(self, version: str) -> None:
        self.version = self.key = version
        self._url = f"{os.environ[ENGINE]}/v1/chat/completions"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def answer(self, text: str) -> Answer:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        async with self._session.post(self._url, json=body) as reply:
            said = json.loads(await reply.read())
        usage = said["usage"]
        text = said["choices"][0]["message"]["content"]
        return Answer(text, None, 0.0, usage["prompt_tokens"], 0, usage["completion_tokens"])

    async def aclose(self) -> None:
        await self._session.close()


async def open_version(_name: str, version: str) -> Passing:
    """What the endpoint's workers open."""
    return Passing(version)


def serve_engine(pipe: Connection) -> None:
    """The engine: every chat is answered after DELAY_S."""
    from aiohttp import web

    body = json.dumps(ANSWER)

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(DELAY_S)
        return web.Response(text=body, content_type="application/json")

    _serve(web.post("/v1/chat/completions", chat), pipe)


def serve_proxy(pipe: Connection) -> None:
    """The plain proxy: bodies passed on as they are."""
    from aiohttp import web

    box: list[aiohttp.ClientSession] = []

    async def chat(request: web.Request) -> web.Response:
        if not box:
            box.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        url = f"{os.environ[ENGINE]}/v1/chat/completions"
        content = await request.read()
        async with box[0].post(url, data=content, headers={"content-type": "application/json"}) as reply:
            return web.Response(body=await reply.read(), content_type="application/json")

    _serve(web.post("/v1/chat/completions", chat), pipe)


def _serve(route: object, pipe: Connection) -> None:
    from aiohttp import web

    async def run() -> None:
        app = web.Application()
        app.add_routes([route])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def served(serve: object) -> Iterator[str]:
    """The address of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True)
class Load:
    """What some requests took: each in milliseconds, all of them a second, and how many were not answered."""

    latencies_ms: list[float]
    requests_per_s: float
    failed: int

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.latencies_ms, n=100)[94]


async def asked(url: str, requests: int, in_flight: int) -> Load:
    """Closed loops: as many requests, so many at a time."""
    left, latencies, failed = iter(range(requests)), list[float](), 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:

        async def loop() -> None:
            nonlocal failed
            for _ in left:
                started = time.perf_counter()
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
                        await reply.read()
                        failed += reply.status != 200
                except aiohttp.ClientError:
                    failed += 1
                latencies.append((time.perf_counter() - started) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(in_flight)))
        seconds = time.perf_counter() - began
    return Load(latencies, requests / seconds, failed)


def side_by_side(urls: dict[str, str], requests: int, in_flight: int, rounds: int) -> dict[str, list[Load]]:
    """Every address asked in turn, round after round; the first round warms up and is left out."""
    loads: dict[str, list[Load]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, url in urls.items():
            load = asyncio.run(asked(url, requests if number else requests // 4, in_flight))
            if number:
                loads[name].append(load)
    return loads


def show(loads: dict[str, list[Load]], in_flight: int) -> None:
    print(f"\n{in_flight} in flight, engine of {DELAY_S * 1000:.0f} ms")
    print(f"{'':>20} {'p50 ms':>8} {'p95 ms':>8} {'requests/s':>11} {'failed':>7}")
    for name, rounds in loads.items():
        p50 = statistics.median(statistics.median(each.latencies_ms) for each in rounds)
        p95 = statistics.median(each.p95_ms for each in rounds)
        rate = statistics.median(each.requests_per_s for each in rounds)
        print(f"{name:>20} {p50:8.1f} {p95:8.1f} {rate:11.0f} {sum(each.failed for each in rounds):7}")


def ratio(loads: dict[str, list[Load]], one: str, other: str) -> float:
    """Of the throughputs, round by round; the median."""
    pairs = zip(loads[one], loads[other], strict=True)
    return statistics.median(a.requests_per_s / b.requests_per_s for a, b in pairs)


def added_ms(loads: dict[str, list[Load]], one: str, other: str) -> float:
    """Between the p95s, round by round; the median."""
    pairs = zip(loads[one], loads[other], strict=True)
    return statistics.median(a.p95_ms - b.p95_ms for a, b in pairs)


def switched(url: str, requests: int, in_flight: int) -> tuple[Load, int]:
    """The requests while the alias moves to and fro; also how often it moved."""
    from leastwise.record.client import connect

    client, moves, is_over = connect(), 0, False

    async def moving() -> None:
        nonlocal moves
        while not is_over:
            await asyncio.sleep(1.5)
            moves += 1
            version = str(moves % 2 + 1)
            await asyncio.to_thread(client.set_registered_model_alias, NAME, "champion", version)

    async def both() -> Load:
        nonlocal is_over
        mover = asyncio.create_task(moving())
        load = await asked(url, requests, in_flight)
        is_over = True
        await mover
        return load

    return asyncio.run(both()), moves


def main(quick: bool) -> None:
    from leastwise.record.client import connect

    rounds, few, many = (1, 40, 200) if quick else (5, 100, 4_000)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["LEASTWISE_HOME"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        client = connect()
        client.create_registered_model(NAME)
        for _ in range(2):
            client.create_model_version(NAME, source=Path(folder).as_uri())
        client.set_registered_model_alias(NAME, "champion", "1")
        os.environ[ENGINE] = engine = stack.enter_context(served(serve_engine))
        urls = {"engine": engine, "plain proxy": stack.enter_context(served(serve_proxy))}
        settings = EndpointSettings(port=0, trace_rate=0)
        made = endpoint(NAME, (), settings, "benchmarks.endpoint:open_version")
        urls["endpoint"] = stack.enter_context(made).url
        for in_flight, requests in ((1, few), (8, few * 4), (MANY, many)):
            loads = side_by_side(urls, requests, in_flight, rounds)
            show(loads, in_flight)
            print(f"p95 over the engine alone: {added_ms(loads, 'endpoint', 'engine'):.1f} ms")
            print(f"throughput of the plain proxy's: {ratio(loads, 'endpoint', 'plain proxy'):.2f}")
        load, moves = switched(urls["endpoint"], 500 if quick else 10_000, MANY)
        print(
            f"\n{len(load.latencies_ms):,} requests during {moves} moves of the alias: {load.failed} failed, ", end=""
        )
        print(f"p95 {load.p95_ms:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few requests: does it run at all?")
    main(parser.parse_args().quick)
