"""How long `prepare` takes from a CSV to a use case, and how the splits come out: 13,000 drawn rows of 77 classes.

`python -m benchmarks.prepare [--rows N] [--classes N]`. Each class has words of its own among common ones, classes are
of unequal size, as in public intent sets; duplicates, contradictions and near duplicates are planted and must be found.
In a state directory of its own, with the tracking database that a first run makes.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

DUPLICATES, CONTRADICTIONS, NEAR = 58, 4, 218
COMMON, OWN, SHARED_OWN = 2000, 12, 0.25  # words in all; of a class; share of a text's words that are its class's


def word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))


def drawn(rows: int, classes: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and labels, with what is planted at the end."""
    rng = random.Random(seed)
    common = [word(rng) for _ in range(COMMON)]
    weights = [1 / (at + 5) for at in range(COMMON)]
    own = [[word(rng) for _ in range(OWN)] for _ in range(classes)]
    shares = [0.4 + rng.random() for _ in range(classes)]
    made: list[tuple[str, str]] = []
    planted = DUPLICATES + 2 * CONTRADICTIONS + NEAR
    for at in rng.choices(range(classes), shares, k=rows - planted):
        words = rng.choices(common, weights, k=rng.randint(6, 24))
        said = [rng.choice(own[at]) if rng.random() < SHARED_OWN else each for each in words]
        made.append((" ".join(said), f"intent_{at:02d}"))
    twice = rng.sample(range(len(made)), planted)
    made += [(f"{made[at][0].upper()}!", made[at][1]) for at in twice[:DUPLICATES]]
    for at in twice[DUPLICATES : DUPLICATES + 2 * CONTRADICTIONS : 2]:
        made += [(f"{made[at][0]} x{at}", "intent_00"), (f"{made[at][0]} x{at}", "intent_01")]
    long = [at for at in range(rows - planted) if len(made[at][0].split()) > 18]
    made += [(f"{made[at][0]} please", made[at][1]) for at in rng.sample(long, NEAR)]
    rng.shuffle(made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=13_000)
    parser.add_argument("--classes", type=int, default=77)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LEASTWISE_HOME"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        source = Path(folder) / "rows.csv"
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "category"), *drawn(given.rows, given.classes)])
        measured(source, given.rows, given.classes)


def measured(source: Path, rows: int, classes: int) -> None:
    import flows  # noqa: F401 - quiets what is imported
    from leastwise.record.client import connect, experiment_id
    from leastwise.rows.preparing.settings import Wanted
    from leastwise.rows.sources.plain import Columns
    from leastwise.stores.tables.table_files import read_table
    from tasks.preparing.prepare import prepare_use_case

    experiment_id(connect(), "drawn")  # makes the database, which only a first run does
    started = time.perf_counter()
    out = str(source.parent / "drawn.yaml")
    prepare_use_case.fn([str(source)], "drawn", Columns(), Wanted(), out)
    seconds = time.perf_counter() - started
    print(f"{rows:,} rows of {classes} classes prepared in {seconds:.1f} s")
    tables = {name: read_table(source.parent / "data" / "drawn" / f"{name}.parquet") for name in JUDGED}
    every = Counter[str]()
    for table in tables.values():
        every.update(table["label"])
    for name, table in tables.items():
        held = Counter(table["label"])
        off = sum(abs(held[label] / len(table) - count / every.total()) for label, count in every.items()) / 2
        print(f"  {name:<6} {len(table):>6,} rows, {len(held)} classes, shares of classes off by {off:.4f}")


JUDGED = ("train", "dev", "gate", "test")

if __name__ == "__main__":
    main()
