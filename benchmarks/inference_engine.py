"""The inference engine beside a plain AsyncOpenAI loop, under a rate limit, and asked again: three tables.

`python -m benchmarks.inference_engine [--quick]`. The server is ours, on this machine, in a process of its own; it
measures no model. Engine and loop run in turn against the same server, so that ratios hold where the machine's speed
drifts; medians are shown. Ideal is what the delay alone allows: requests in flight / delay.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import stand_in
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.request import Message, Request, Target
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.use_case.price import Usage

DELAY_S, IN_FLIGHT, ALLOWED_PER_S = 0.2, 32, 50
SYSTEM = "Name the tactic of the sentence. " * 8


def price(usage: Usage) -> float:
    return (usage.input_tokens + 4 * usage.output_tokens) / 1e6


def serve(pipe: Connection, delay_s: float, allowed_per_s: float, burst: int) -> None:
    """A chat endpoint that answers after `delay_s`; above `allowed_per_s` it answers 429 at once.

    With `burst` 0 at most `allowed_per_s` calls are taken in any second; else it is a bucket of `burst` tokens.
    """
    from aiohttp import web

    taken: deque[float] = deque()
    counts = {"taken": 0, "refused": 0}
    bucket = {"tokens": float(burst), "at": time.monotonic()}

    def is_allowed(now: float) -> bool:
        if not allowed_per_s:
            return True
        if burst:
            bucket["tokens"] = min(burst, bucket["tokens"] + (now - bucket["at"]) * allowed_per_s)
            bucket["at"] = now
            if bucket["tokens"] < 1:
                return False
            bucket["tokens"] -= 1
            return True
        while taken and taken[0] <= now - 1:
            taken.popleft()
        return len(taken) < allowed_per_s

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        now = time.monotonic()
        if not is_allowed(now):
            counts["refused"] += 1
            return web.Response(status=429, text="{}", content_type="application/json")
        taken.append(now)
        counts["taken"] += 1
        await asyncio.sleep(delay_s)
        return stand_in.answered()

    async def run() -> None:
        runner, address = await stand_in.listen(web.post(stand_in.CHAT, chat))
        pipe.send(address)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send(counts)
        await runner.cleanup()

    asyncio.run(run())


@contextmanager
def server(delay_s: float, allowed_per_s: float = 0.0, burst: int = 0) -> Iterator[tuple[str, dict[str, int]]]:
    """The base URL of a running server, and its counts of calls once the block has ended."""
    counts: dict[str, int] = {}
    with stand_in.process(serve, delay_s, allowed_per_s, burst) as pipe:
        yield f"{pipe.recv()}/v1", counts
        pipe.send("stop")
        counts |= pipe.recv()


def plain_loop(base_url: str, calls: int) -> float:
    """Seconds that a plain AsyncOpenAI loop with a semaphore needs."""
    from openai import AsyncOpenAI

    async def run() -> float:
        room = asyncio.Semaphore(IN_FLIGHT)
        async with AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:

            async def one(number: int) -> None:
                messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"row {number}"}]
                async with room:
                    await client.chat.completions.create(model="m", messages=messages, max_tokens=6, temperature=0)

            started = time.perf_counter()
            await asyncio.gather(*(one(number) for number in range(calls)))
            return time.perf_counter() - started

    return asyncio.run(run())


def requests(calls: int, label: str) -> list[Request]:
    texts = [f"{label} row {number}" for number in range(calls)]
    return [Request(text, (Message("system", SYSTEM), Message("user", text)), max_tokens=6) for text in texts]


@contextmanager
def engine(base_url: str, folder: Path, metered: bool = True) -> Iterator[Asker]:
    """The engine as an evaluation uses it: stored and, if `metered`, each call's worst case reserved before
    it is sent.
    """
    target = Target("openai:m", "1", base_url=base_url, api_key="k")
    with ResponseStore(folder / "answers.db") as store, LedgerFile(folder / "ledger.db") as ledger:
        meter = Meter(ledger, Caps("c", 1e6, 1e6), "bench", "prompt") if metered else None
        with Asker(target, store=store, price=price, meter=meter, concurrency=IN_FLIGHT) as asker:
            yield asker


def timed_ask(asker: Asker, wanted: list[Request]) -> float:
    started = time.perf_counter()
    replies = asker.ask(wanted)
    assert not [reply.error for reply in replies if reply.error]
    return time.perf_counter() - started


def speed(rounds: int, calls: int) -> None:
    ideal = IN_FLIGHT / DELAY_S
    ours, theirs, again = [], [], []
    with server(DELAY_S) as (base_url, _), tempfile.TemporaryDirectory() as scratch:
        plain_loop(base_url, IN_FLIGHT)
        for number in range(rounds):
            theirs.append(calls / plain_loop(base_url, calls))
            with engine(base_url, Path(scratch, str(number))) as asker:
                wanted = requests(calls, str(number))
                first = timed_ask(asker, wanted)
                ours.append(calls / first)
                again.append(timed_ask(asker, wanted) / first)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"| {calls} calls, {DELAY_S * 1000:.0f} ms, {IN_FLIGHT} in flight, {rounds} rounds | target "
        "| median |\n|---|---|---|"
    )
    print(f"| plain AsyncOpenAI loop, requests/s | | {statistics.median(theirs):.0f} |")
    print(f"| engine (stored, metered), requests/s | | {statistics.median(ours):.0f} |")
    print(f"| engine / plain loop | ≥ 0.95 | {ratio:.2f} |")
    print(f"| engine / ideal | ≥ 0.85 | {statistics.median(ours) / ideal:.2f} |")
    print(f"| the same asked again, share of the first run's time | ≤ 0.03 | {statistics.median(again):.4f} |\n")


def limited(calls: int) -> None:
    print(
        f"| {ALLOWED_PER_S} requests a second allowed, {calls} calls | of what is allowed (≥ 0.85) "
        "| 429s (≤ 2%) |\n|---|---|---|"
    )
    for name, burst in (("in any second", 0), ("bucket of 10", 10), ("bucket of 50", 50)):
        with tempfile.TemporaryDirectory() as scratch:
            with server(DELAY_S, ALLOWED_PER_S, burst) as (base_url, counts), engine(base_url, Path(scratch)) as asker:
                seconds = timed_ask(asker, requests(calls, "limited"))
            refused = counts["refused"] / (counts["refused"] + counts["taken"])
            print(f"| {name} | {calls / seconds / ALLOWED_PER_S:.2f} | {refused:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds")
    quick = parser.parse_args().quick
    speed(1 if quick else 5, 600 if quick else 1_600)
    limited(600 if quick else 1_500)


if __name__ == "__main__":
    main()
