"""How much memory and time traffic of up to ten million requests takes: read, checked, held against train and dev.

`python -m benchmarks.long_traffic [--rows N ...] [--kind csv]`. Each size is a file of texts of about 200 bytes with
ids, labels and times out of order, every text coming twice, and read in a process of its own; so is the same file whole
as one data frame of pandas, the baseline. Seconds are the processor's. What grows is said: a process of this package
takes its memory without any rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

SIZES = (100_000, 1_000_000, 10_000_000)
AT_A_TIME = 500_000
PHRASES = [f"{word} " * 24 for word in ("kettle", "invoice", "parcel", "refund", "account", "cable", "lid")]
PEAK = """
import sys, time
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
"""
OURS = """
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase
from benchmarks.long_traffic import use_case
folder, traffic = sys.argv[1:]
Tables(UseCase.model_validate(use_case(folder, folder + "/short.csv"))).check()
before, started = peak(), time.process_time()
tables = Tables(UseCase.model_validate(use_case(folder, traffic)))
rows = tables.rows("traffic")
read = time.process_time() - started
tables.check()
print(rows, read, time.process_time() - started, peak() - before)
"""
WHOLE = """
import pandas as pd
import pyarrow.parquet
started, before = time.process_time(), peak()
frame = pd.read_parquet(sys.argv[1]) if sys.argv[1].endswith("parquet") else pd.read_csv(sys.argv[1], dtype=str)
print(time.process_time() - started, peak() - before)
"""


def use_case(folder: str, traffic: str) -> dict[str, object]:
    tables = {name: f"{folder}/{name}.csv" for name in ("gate", "train", "dev")}
    return {
        "name": "long",
        "task": {"instruction": "Say.", "labels": ["0", "1"]},
        "data": {**tables, "traffic": traffic, "time_column": "at"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:toy"}]},
        "allow_no_test": True,
    }


def requests(start: int, count: int, distinct: int) -> pd.DataFrame:
    which: npt.NDArray[np.int64] = np.arange(start, start + count) % distinct
    phrases = np.array(PHRASES, dtype=object)[which % len(PHRASES)]
    at = 1_700_000_000 + (np.arange(start, start + count) * 7919) % 2_592_000
    texts = pd.Series(which).astype(str) + " " + phrases
    return pd.DataFrame({"id": [f"t{n}" for n in range(start, start + count)], "text": texts, "label": "0", "at": at})


def written(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for start in range(0, rows, AT_A_TIME):
        frame = requests(start, min(AT_A_TIME, rows - start), max(rows // 2, 1))
        if path.suffix == ".csv":
            frame.to_csv(path, mode="a", index=False, header=not start)
            continue
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def said(code: str, *words: str) -> list[float]:
    run = subprocess.run([sys.executable, "-c", PEAK + code, *words], capture_output=True, text=True, check=True)
    return [float(word) for word in run.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kind", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--no-baseline", action="store_true", help="do not read it whole too, which takes its memory")
    args = parser.parse_args()
    print("| requests | file | replayed | read | read and checked | grows by | whole in pandas |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, rows in (("gate", 100), ("train", 10_000), ("dev", 1_000), ("short", 10)):
            body = "".join(f"{split} {n} of its own,0,{n}\n" for n in range(rows))
            (folder / f"{split}.csv").write_text("text,label,at\n" + body)
        for rows in args.rows:
            path = folder / f"traffic.{args.kind}"
            written(path, rows)
            replayed, read, all_in_all, grown = said(OURS, str(folder), str(path))
            whole = "" if args.no_baseline else "{:.0f} s, {:,.0f} MB".format(*said(WHOLE, str(path)))
            size = path.stat().st_size / 1e6
            figures = f"{replayed:,.0f} | {read:.0f} s | {all_in_all:.0f} s | {grown:,.0f} MB | {whole} |"
            print(f"| {rows:,} | {size:,.0f} MB | {figures}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
