"""A climb whose domain is not public and whose leave for pre-training was given goes through Level 4; without
leave it ends there.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from flows.customize import customize
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun
from tests.flows.test_upkeep import LABELS, rows
from tests.workspaces import state_in

PRICE = {"input": 1.0, "output": 2.0, "illustrative": True}


@pytest.fixture
def case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path, tiny_gguf: Path, empty_tracking: Path
) -> dict[str, Any]:
    """A base that knows nothing, so that quality fails; documents and general text to pre-train on, nobody to
    prompt.
    """
    monkeypatch.setenv("LEASTWISE_HOME", state_in(tmp_path, empty_tracking))
    shutil.copytree(tiny_gguf, tmp_path / "gguf", copy_function=os.link)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for split, n in {"train": 1000, "dev": 16, "gate": 50, "test": 20}.items():
        rows(split, n).to_parquet(tmp_path / f"{split}.parquet")
    for name, words in {
        "documents": "An apple falls from tree",
        "general": "A loop with an else clause runs it after pass",
    }.items():
        texts = [f"{words} {n}, and then the next one, number {n + 1}, does so too." for n in range(80)]
        pd.DataFrame({"id": [f"{name}-{n}" for n in range(80)], "text": texts}).to_parquet(tmp_path / f"{name}.parquet")
    tables = ("train", "dev", "gate", "test", "documents", "general")
    return {
        "name": "not-public",
        "task": {"instruction": "Fruit or metal?", "labels": list(LABELS), "domain_is_public": False},
        "data": {name: f"{name}.parquet" for name in tables},
        "requirements": {"quality": {"bound": 0.9, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 2},
        "models": {
            "candidates": [{"uri": "openai:nobody", "price": PRICE}],
            "base": {"uri": tiny.as_uri(), "venue": "managed", "price": PRICE},
        },
        "training": {"max_examples": 16, "pretrain_steps": 1, "replay_share": 0.25},
        "forgetting": {"texts": 8, "tasks": 25},
        "last_stage": "pretrain",
        "approvals": {"prompt": "never", "pretrain": "granted"},
    }


def climbed(folder: Path, case: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """The ending, the stage runs by stage, and the climb's own metrics."""
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    ending = customize(str(folder / "case.yaml"))
    climb = ClimbRun.read(connect(), ending.mlflow_run_id)
    return ending, {stage.stage: stage.run for stage in climb.stage_runs()}, climb.run.data.metrics


def test_a_granted_pretrain_is_climbed_through_with_what_it_did_to_corpus_task_and_general_text(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    ending, stages, climb = climbed(tmp_path, case)
    assert (ending.outcome, stages["fine_tune"].data.tags["leastwise.verdict"]) == ("none", "FAIL")
    assert stages["pretrain"].data.tags["leastwise.verdict"] == "FAIL"
    assert climb["pretrain.replayed_share"] == 0.25
    assert {
        f"pretrain.{kind}.{when}" for kind in ("perplexity", "general_perplexity") for when in ("before", "after")
    } <= set(climb)
    metrics = stages["pretrain"].data.metrics
    assert metrics["quality.before"] == stages["fine_tune"].data.metrics["quality"]
    for stage in ("fine_tune", "pretrain"):
        assert {"forgetting.perplexity_before", "forgetting.perplexity_after", "forgetting.n"} <= set(
            stages[stage].data.metrics
        )
    assert metrics["forgetting.perplexity_before"] == stages["fine_tune"].data.metrics["forgetting.perplexity_before"]


def test_without_leave_and_nobody_to_ask_nothing_is_pretrained(tmp_path: Path, case: dict[str, Any]) -> None:
    case["approvals"] = {"prompt": "never", "fine_tune": "never"}
    ending, stages, climb = climbed(tmp_path, case)
    assert ending.outcome == "rejected" and "approvals: {pretrain: granted}" in ending.reason
    assert stages["fine_tune"].data.tags["leastwise.verdict"] == "SKIPPED" and "pretrain" not in stages
    assert "pretrain.perplexity.before" not in climb and not (tmp_path / "bases").exists()
