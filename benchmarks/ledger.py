"""How many calls a second the ledger meters: a reservation and its settlement, each a transaction on disk.

`python -m benchmarks.ledger [--quick]`. Beside it, in the same run and file system, the least that two durable
statements can take: a bare SQLite table of two columns, an insert and an update, each committed. Rounds alternate, and
the ratio is what to compare between machines. With `--processes N` as many write to one file at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from leastwise.stores.caps import Caps
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.sqlite_file import open_wal, transaction

ROUNDS = 5
CAPS = Caps("climb", 1e9, 1e9)


def metered(folder: Path, pairs: int) -> None:
    ledger = LedgerFile(folder / "ledger.db")
    for _ in range(pairs):
        ledger.settle(ledger.reserve(CAPS, "case", "prompt", 0.01), 0.001)


def bare(folder: Path, pairs: int) -> None:
    connection = open_wal(folder / "bare.db", "CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, usd INTEGER)")
    for _ in range(pairs):
        with transaction(connection):
            at = connection.execute("INSERT INTO calls (usd) VALUES (10)").lastrowid
        with transaction(connection):
            connection.execute("UPDATE calls SET usd = 1 WHERE id = ?", (at,))
    connection.close()


def pairs_per_s(work: Callable[[Path, int], None], folder: Path, pairs: int, processes: int) -> float:
    started = time.perf_counter()
    if processes == 1:
        work(folder, pairs)
    else:
        every = [multiprocessing.Process(target=work, args=(folder, pairs // processes)) for _ in range(processes)]
        for each in every:
            each.start()
        for each in every:
            each.join()
            if each.exitcode:
                raise SystemExit(f"a process ended with {each.exitcode}: nothing was measured")
    return pairs / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 pairs a round instead of 4,000")
    parser.add_argument("--processes", type=int, default=1, help="how many write to one file at once")
    args = parser.parse_args()
    pairs = 500 if args.quick else 4_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rounds = [[pairs_per_s(work, folder, pairs, args.processes) for work in (metered, bare)] for _ in range(ROUNDS)]
    print("| round | ledger, pairs/s | bare SQLite, pairs/s | ratio |")
    print("|---|---|---|---|")
    for number, (ledger, plain) in enumerate(rounds, 1):
        print(f"| {number} | {ledger:,.0f} | {plain:,.0f} | {ledger / plain:.2f} |")
    ratio = statistics.median(ledger / plain for ledger, plain in rounds)
    print(f"\nmedian ratio {ratio:.2f}, {pairs:,} pairs a round, {args.processes} at once")


if __name__ == "__main__":
    main()
