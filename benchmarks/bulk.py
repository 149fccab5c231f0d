"""A long table answered by a champion, beside the same engine given the same texts and nothing else to do.

`python -m benchmarks.bulk [NAME [ROWS]]`: a use case (alert-triage-cheap) of LEASTWISE_HOME with a champion; ROWS
(20,000) texts of its gate and test sets, each made its own by a number. Shards are cut, answered, scored, written and
logged by `flows.bulk` (rows a second over all of it, and over the answering alone); the engine is asked the texts of
one shard directly. What ten million rows would take is that rate, said as such: nothing of that length was run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.serving.bulk.answering_rows import open_bulk
from leastwise.stores.answer_store import NoAnswers
from leastwise.stores.budget import Budget
from leastwise.stores.ledger_file import LedgerFile

SHARD_ROWS, MANY = 10_000, 10_000_000


def measure(name: str, rows: int) -> None:
    """Print the rates as one line of JSON."""
    case = load(name)
    tables = Tables(case)
    known = pd.concat([tables.need("gate"), tables.need("test")], ignore_index=True)[["text", "label"]]
    table = pd.concat([known] * (rows // len(known) + 1), ignore_index=True).head(rows)
    table["text"] = [f"{text} ({at})" for at, text in enumerate(table["text"])]
    version = Registry(connect(), case.name).aliases().get("champion", "")
    if not version:
        print(json.dumps({"left_out": f"{name} has no champion in this LEASTWISE_HOME; climb and promote one first"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        source, began = Path(folder) / "rows.parquet", time.monotonic()
        table.to_parquet(source)
        command = [sys.executable, "-m", "flows.bulk", name, str(source), f"{folder}/out", f"shard_rows={SHARD_ROWS}"]
        done = subprocess.run(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True, check=True)
        whole_s = time.monotonic() - began
        ending = json.loads(done.stdout.splitlines()[-1])
        figures = connect().get_run(ending["mlflow_run_id"]).data.metrics
        alone = _engine_alone(case.name, version, table.head(min(rows, SHARD_ROWS)), Path(folder))
    rate = rows / whole_s
    print(
        json.dumps(
            {
                "rows": rows,
                "rows_per_s": round(rate, 1),
                "answering_rows_per_s": round(figures["rows_per_s"], 1),
                "engine_alone_rows_per_s": round(alone, 1),
                "of_the_engine": round(rate / alone, 3),
                "quality": figures.get("quality"),
                "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
                "hours_for_ten_million_at_that_rate": round(MANY / rate / 3600, 1),
            }
        )
    )


def _engine_alone(name: str, version: str, rows: pd.DataFrame, folder: Path) -> float:
    budget = Budget(LedgerFile(folder / "ledger.db"), "benchmark", load(name))
    with open_bulk(name, version, NoAnswers(), budget) as answerer:
        asked = rows.assign(id=[str(at) for at in range(len(rows))])
        answerer.many(asked.head(64))
        began = time.monotonic()
        answerer.many(asked)
        return len(rows) / (time.monotonic() - began)


if __name__ == "__main__":
    measure(
        sys.argv[1] if len(sys.argv) > 1 else "alert-triage-cheap", int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    )
