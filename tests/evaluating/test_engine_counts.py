"""What an engine of ours had to do for a stage is in the stage's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage, measure_candidate
from leastwise.ladder.candidate import Candidate, Prompt
from tests.workspaces import case_file, opened


def climb(tiny: Path, folder: Path) -> Workspace:
    folder.mkdir()
    rows = [{"id": f"r{i}", "text": f"text {i}", "label": "alpha"} for i in range(60)]
    pd.DataFrame(rows).to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "counted",
        "task": {"instruction": "Which?", "labels": ["alpha", "beta"], "decline_label": "none"},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "concurrency": 2, "output_tokens": 4},
        "models": {"candidates": [{"uri": tiny.as_uri(), "price": {"input": 1.0, "output": 4.0}}]},
        "last_stage": "prompt",
        "allow_no_test": True,
    }
    return opened(case_file(folder, case))


def test_a_stage_logs_what_its_engine_counted_and_what_was_known_from_before_costs_it_nothing(
    tiny: Path, home: Path, tmp_path: Path
) -> None:
    work = climb(tiny, tmp_path / "one")
    plain = Candidate(stage="prompt", model=tiny.as_uri(), venue="api", prompt=Prompt(system="Which?"))
    figures = evaluate_stage(work, "prompt", [plain]).run.figures
    asked = figures["calls.paid"] + figures["calls.cached"]
    assert figures["engine.input_tokens"] + figures["tokens.cached"] >= asked, "each prompt has tokens of its own"
    assert 0 < figures["engine.output_tokens"] <= 4 * asked + asked
    assert 0 <= figures["engine.most_running"] <= 1 and figures["engine.most_waiting"] >= 0
    again = measure_candidate(work, plain).totals
    assert (again["engine.input_tokens"], again["engine.output_tokens"]) == (0, 0)
