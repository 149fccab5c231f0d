"""A winner confirmed by the flow that a pool runs: its state says what came of it, and the figures are the climb's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from flows.steps.confirm import confirm
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from tasks import climb as climbing
from tests.workspaces import case_file, opened


def test_the_flow_of_a_pool_confirms_a_winner_and_its_state_says_how(
    tiny: Path, home: Path, tmp_path: Path, prefect_api: str
) -> None:
    rows = [{"id": f"r{i}", "text": f"text {i}", "label": "alpha"} for i in range(70)]
    pd.DataFrame(rows[:60]).to_parquet(tmp_path / "gate.parquet")
    pd.DataFrame(rows[60:]).to_parquet(tmp_path / "test.parquet")
    case: dict[str, Any] = {
        "name": "confirmed",
        "task": {"instruction": "Which?", "labels": ["alpha", "beta"], "decline_label": "none"},
        "data": {"gate": "gate.parquet", "test": "test.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "concurrency": 2, "output_tokens": 4},
        "models": {"candidates": [{"uri": tiny.as_uri(), "price": {"input": 1.0, "output": 4.0}}]},
        "last_stage": "prompt",
    }
    work = opened(case_file(tmp_path, case))
    plain = Candidate(stage="prompt", model=tiny.as_uri(), venue="self_host", prompt=Prompt(system="Which?"))
    evaluate_stage(work, "prompt", [plain])
    assert not climbing.lacks_engine(work.run.id, "prompt")
    state = confirm(work.run.id, "prompt", return_state=True)
    assert (state.is_completed(), state.message) == (True, "no"), "weights that were drawn tell no labels"
    figures = work.run.client.get_run(work.run.id).data.metrics
    assert figures["test.quality.n"] == 10 and figures["test.quality"] < 0.8
