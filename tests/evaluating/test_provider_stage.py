"""A stage measured over providers' own wire formats: verdict, spend and who answered are the same whoever serves it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.run import ANSWERED_BY
from tests.servers.provider_server import provider_server
from tests.workspaces import case_file, opened

LABELS = ("alpha", "beta")
URIS = {
    "azure": "azure:our-deployment",
    "bedrock": "bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "openrouter": "openrouter:meta-llama/llama-3.3-70b-instruct",
}


@pytest.mark.parametrize("provider", URIS)
def test_a_stage_over_a_provider_passes_is_billed_by_its_counts_and_names_who_answered(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, provider: str
):
    monkeypatch.setenv("GATEWAY_KEY", "the-gateways")
    rows = [f"row {n} key={LABELS[n % 2]} ." for n in range(50)]
    table = pd.DataFrame({"id": [f"r{n}" for n in range(50)], "text": rows})
    table.assign(label=[LABELS[n % 2] for n in range(50)]).to_csv(tmp_path / "gate.csv", index=False)
    with provider_server() as server:
        model = {"uri": URIS[provider], "base_url": server.base_url(provider), "key_variable": "GATEWAY_KEY"}
        case: dict[str, Any] = {
            "name": "provided",
            "task": {"instruction": "Say the key.", "labels": list(LABELS)},
            "data": {"gate": "gate.csv"},
            "requirements": {"quality": {"bound": 0.7, "margin": 0.3}},
            "traffic": {"requests_per_month": 10_000, "concurrency": 4},
            "models": {"candidates": [model | {"price": {"input": 1.0, "cached": 0.1, "output": 4.0}}]},
            "last_stage": "prompt",
            "allow_no_test": True,
        }
        work = opened(case_file(tmp_path, case))
        who = Candidate(stage="prompt", model=URIS[provider], venue="api", prompt=Prompt(system="Say the key."))
        result = evaluate_stage(work, "prompt", [who])
        asked = len(server.asked[provider])
    assert (result.verdict.outcome, result.run.figures["calls.paid"]) == ("PASS", asked)
    assert result.run.figures["tokens.cached"] == 900 * asked
    named = "" if provider == "bedrock" else f"{provider}-model-2026-10-01 ({asked})"
    assert result.run.tag(ANSWERED_BY) == named
