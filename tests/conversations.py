"""An open climb over 60 gate rows, two a conversation."""

from pathlib import Path
from typing import Any

import pandas as pd

from leastwise.answering.workspace import Workspace
from tests.workspaces import case_file, opened

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}


def conversations(folder: Path) -> Workspace:
    """The climb; its tables lie in the folder."""
    labels = ["yes" if i % 3 else "no" for i in range(60)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "label": labels})
    rows.assign(talk=[f"c{i // 2}" for i in range(60)]).to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "student-and-teacher",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet", "unit_by": "talk"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
        "allow_no_test": True,
    }
    return opened(case_file(folder, case))
