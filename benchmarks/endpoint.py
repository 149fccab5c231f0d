"""The endpoint beside the engine behind it and beside a plain proxy: latency, throughput, and switches under load.

`python -m benchmarks.endpoint [--quick]`; with `--winner NAME` beside the engine of that champion of LEASTWISE_HOME,
asked as the gate asks it. Without, the engine is a chat server of ours that answers after 50 ms, in a process of
its own; the plain proxy is aiohttp, which only passes bodies on; the endpoint keeps its traffic log and writes no
traces. All three are asked in turn, round after round, by one client, so that ratios hold where the machine's speed
drifts; medians over the rounds are shown. The switches are moves of an alias in a real registry, under load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks import stand_in
from leastwise.answering.reaching.reached import target_of
from leastwise.answering.served import requests_of
from leastwise.answering.servers import student_server
from leastwise.metrics.answer import Answer
from leastwise.record.published.candidate_files import BUNDLE, fetch_model
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.serving.production import Production
from leastwise.serving.server import endpoint
from leastwise.serving.settings import EndpointSettings

NAME, DELAY_S, MANY = "benchmark", 0.05, 64
ENGINE = "LEASTWISE_BENCHMARK_ENGINE"
BODY = {"model": NAME, "messages": [{"role": "user", "content": "The malware deletes shadow copies. " * 4}]}


class Passing:
    """A version that passes its text to the engine."""

    mask: tuple[str, ...] = ()

    def __init__(self, version: str) -> None:
        self.version = self.key = version
        self._url = f"{os.environ[ENGINE]}{stand_in.CHAT}"
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

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(DELAY_S)
        return stand_in.answered()

    _serve(web.post(stand_in.CHAT, chat), pipe)


def serve_proxy(pipe: Connection) -> None:
    """The plain proxy: bodies passed on as they are."""
    box: list[aiohttp.ClientSession] = []

    async def chat(request: web.Request) -> web.Response:
        if not box:
            box.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        url = f"{os.environ[ENGINE]}{stand_in.CHAT}"
        content = await request.read()
        async with box[0].post(url, data=content, headers={"content-type": "application/json"}) as reply:
            return web.Response(body=await reply.read(), content_type="application/json")

    _serve(web.post(stand_in.CHAT, chat), pipe)


def _serve(route: web.RouteDef, pipe: Connection) -> None:
    async def run() -> None:
        _, address = await stand_in.listen(route)
        pipe.send(address)
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def served(serve: Callable[..., object]) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with stand_in.process(serve) as pipe:
        yield pipe.recv()


@dataclass(frozen=True)
class Load:
    """What some requests took: each in milliseconds, all of them a second, and how many were not answered."""

    latencies_ms: list[float]
    requests_per_s: float
    failed: int

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.latencies_ms, n=100)[94]


@dataclass(frozen=True)
class Place:
    """Where requests go: `url` with its path, what is sent in turn, and what opens it."""

    url: str
    bodies: Sequence[object] = (BODY,)
    key: str = ""


async def asked(place: Place, requests: int, in_flight: int) -> Load:
    """Closed loops: as many requests, so many at a time."""
    left, latencies, failed = iter(range(requests)), list[float](), 0
    connector = aiohttp.TCPConnector(limit=0)
    headers, timeout = {"Authorization": f"Bearer {place.key or 'none'}"}, aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def loop() -> None:
            nonlocal failed
            for number in left:
                started = time.perf_counter()
                try:
                    async with session.post(place.url, json=place.bodies[number % len(place.bodies)]) as reply:
                        await reply.read()
                        failed += reply.status != 200
                except aiohttp.ClientError:
                    failed += 1
                latencies.append((time.perf_counter() - started) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(in_flight)))
        seconds = time.perf_counter() - began
    return Load(latencies, requests / seconds, failed)


def side_by_side(places: dict[str, Place], requests: int, in_flight: int, rounds: int) -> dict[str, list[Load]]:
    """Every place asked in turn, round after round; the first round warms up and is left out."""
    loads: dict[str, list[Load]] = {name: [] for name in places}
    for number in range(rounds + 1):
        for name, place in places.items():
            load = asyncio.run(asked(place, requests if number else requests // 4, in_flight))
            if number:
                loads[name].append(load)
    return loads


def show(loads: dict[str, list[Load]], in_flight: int, engine: str) -> None:
    print(f"\n{in_flight} in flight, {engine}")
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


def switched(place: Place, requests: int, in_flight: int) -> tuple[Load, int]:
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
        load = await asked(place, requests, in_flight)
        is_over = True
        await mover
        return load

    return asyncio.run(both()), moves


def beside_a_stand_in(quick: bool) -> None:
    """Engine, plain proxy and endpoint; then moves of the alias under load."""
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
        places = {name: Place(url + stand_in.CHAT) for name, url in urls.items()}
        for in_flight, requests in ((1, few), (8, few * 4), (MANY, many)):
            loads = side_by_side(places, requests, in_flight, rounds)
            show(loads, in_flight, f"engine of {DELAY_S * 1000:.0f} ms")
            print(f"p95 over the engine alone: {added_ms(loads, 'endpoint', 'engine'):.1f} ms")
            print(f"throughput of the plain proxy's: {ratio(loads, 'endpoint', 'plain proxy'):.2f}")
        load, moves = switched(places["endpoint"], 500 if quick else 10_000, MANY)
        print(
            f"\n{len(load.latencies_ms):,} requests during {moves} moves of the alias: {load.failed} failed, ", end=""
        )
        print(f"p95 {load.p95_ms:.1f} ms")


@contextmanager
def engine_of(production: Production, texts: Sequence[str]) -> Iterator[Place]:
    """The winner's own engine asked directly, as a gate asks it: MLflow's model server of a student, or llama.cpp with
    the very requests that the candidate makes of these texts.
    """
    candidate = production.candidate
    if candidate.weights and candidate.weights.kind == "student":
        with student_server(production.home, candidate, production.trained(candidate)) as engine:
            rows = [{"dataframe_split": {"columns": ["text"], "data": [[text]]}} for text in texts]
            yield Place(f"{engine.base_url}/invocations", rows)
        return
    with ExitStack() as servers:
        target = target_of(production, candidate, servers)
        requests = requests_of(production, candidate, [""] * len(texts), texts)
        bodies = [
            {
                "model": target.model_name,
                "messages": [{"role": turn.role, "content": turn.content} for turn in each.messages],
                "max_tokens": each.max_tokens,
                "temperature": 0,
            }
            for each in requests
        ]
        yield Place(f"{target.base_url}/chat/completions", bodies, target.api_key or "")


def beside_its_own_engine(name: str, quick: bool) -> None:
    """A registered winner of LEASTWISE_HOME at the endpoint, and the engine that it answers with asked directly."""
    from leastwise.record.client import connect

    client = connect()
    champion = Registry(client, name).champion()
    assert champion is not None, f"models:/{name}@champion: promote a run first"
    run = StageRun.read(client, champion.run_id)
    texts = list(run.examples()["input"].drop_duplicates().head(200))
    rounds, requests = (1, 40) if quick else (5, 400)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        model = Path(scratch, "model")
        fetch_model(f"models:/{name}/{champion.version}", model)
        production = Production.of(model / BUNDLE, Path(scratch))
        made = endpoint(name, (), EndpointSettings(port=0, trace_rate=0, traffic_log=f"{scratch}/traffic"))
        chats = [{"model": name, "messages": [{"role": "user", "content": text}]} for text in texts]
        places = {
            "engine": stack.enter_context(engine_of(production, texts)),
            "endpoint": Place(stack.enter_context(made).url + stand_in.CHAT, chats),
        }
        for in_flight in (1, 8):
            loads = side_by_side(places, requests, in_flight, rounds)
            show(loads, in_flight, f"the engine of {name} ({champion.candidate.stage})")
            print(f"p95 over the engine alone: {added_ms(loads, 'endpoint', 'engine'):.1f} ms")
            print(f"throughput of the engine's own: {ratio(loads, 'endpoint', 'engine'):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few requests: does it run at all?")
    parser.add_argument("--winner", default="", help="a use case of LEASTWISE_HOME with a champion: beside its engine")
    given = parser.parse_args()
    if given.winner:
        beside_its_own_engine(given.winner, given.quick)
    else:
        beside_a_stand_in(given.quick)
