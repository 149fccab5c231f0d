"""How long the gate on data takes for 100,000 rows: everything that needs no embedding, in one process.

`python -m benchmarks.data_checks [--quick]`. Rows are drawn from the embedded training sentences, each with two words
of its own put in, so that they are as long and as English as real ones; a few duplicates, leaks, addresses and control
characters are planted and must be found.
"""

from __future__ import annotations

import argparse
import random
import time

import pandas as pd

from leastwise.rows import validation
from leastwise.stores import storage
from leastwise.stores.tables import table_files

PLANTED = 20
LABELS = ("yes", "no")


def rows(count: int, prefix: str, texts: list[str], seed: int) -> pd.DataFrame:
    rng = random.Random(seed)
    drawn = []
    for number in range(count):
        words = rng.choice(texts).split()
        for _ in range(2):
            words.insert(rng.randrange(len(words) + 1), f"{prefix}{number}x{rng.randrange(1000)}")
        drawn.append(" ".join(words))
    return pd.DataFrame(
        {"id": [f"{prefix}{n}" for n in range(count)], "text": drawn, "label": [LABELS[n % 2] for n in range(count)]}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 rows instead of 100,000")
    count = 10_000 if parser.parse_args().quick else 100_000
    source = table_files.read_table(str(storage.home() / "data" / "alert-triage" / "train.parquet"))
    texts = [text for text in source["text"] if len(text.split()) > 8]
    table, train = rows(count, "g", texts, 1), rows(count // 10, "t", texts, 2)
    for at in range(PLANTED):
        table.loc[at, "text"] = table.loc[1000 + at, "text"]
        table.loc[100 + at, "text"] = train.loc[at, "text"] + " again"
        table.loc[200 + at, "text"] = f"{table.loc[200 + at, 'text']} ann{at}@example.com"
        table.loc[300 + at, "text"] = f"{table.loc[300 + at, 'text']} \x07"
    started = time.perf_counter()
    checked = validation.validate(table, "gate", "rows", "en", {"train": train}, labels=list(LABELS))
    seconds = time.perf_counter() - started
    found = {each.column: len(each.failing_ids) for each in (*checked.failures, *checked.warnings)}
    print(f"{count:,} rows held to the suite `gate`, against {len(train):,} rows of another split: {seconds:.1f} s")
    for column in ("exact_duplicate_of", "leaks_from", "personal", "control_characters"):
        print(f"  {column:<20} planted {PLANTED}, found {found.get(column, 0)}")
    missed = [
        column
        for column in ("exact_duplicate_of", "leaks_from", "personal", "control_characters")
        if found.get(column, 0) < PLANTED
    ]
    if missed:
        raise SystemExit(f"not all that was planted was found: {', '.join(missed)}")


if __name__ == "__main__":
    main()
