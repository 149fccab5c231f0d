"""Every measured candidate is an MLflow model that loads, registered or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.record.stage_run import StageRun
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}


async def told(request: web.Request) -> web.Response:
    number = int((await request.json())["messages"][-1]["content"].split()[-1])
    return chat_completion("m", "odd" if number % 2 else "even", 20, 1)


def climbed(folder: Path, base_url: str, **more: Any) -> Workspace:
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(30)], "text": [f"number {n}" for n in range(30)]})
    rows["label"] = ["odd" if n % 2 else "even" for n in range(30)]
    rows.to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "measured",
        "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:m", "price": PRICE, "base_url": base_url}]},
        "allow_no_test": True,
    }
    return opened(case_file(folder, case | more))


PLAIN = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Odd or even?"))
CONSTRAINED = PLAIN.model_copy(update={"prompt": Prompt(system="Odd or even?", constrained=True)})


def test_a_candidate_that_was_only_measured_loads_by_its_model_and_by_its_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with served(web.post("/v1/chat/completions", told)) as address:
        work = climbed(tmp_path, f"{address}/v1")
        run = evaluate_stage(work, "prompt", [PLAIN, CONSTRAINED]).run
        mlflow.set_tracking_uri(run.client.tracking_uri)
        tries = [StageRun(run.client, each) for each in run.children()]
        assert tries and Registry(run.client, "measured").version_of(run) is None
        for each in (run, *tries):
            name = run.client.get_logged_model(each.tag(MODEL_ID)).name
            for uri in (f"models:/{each.tag(MODEL_ID)}", f"runs:/{each.id}/{name}"):
                (row,) = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"text": ["number 7"]})).to_dict("records")
                assert (row["answer"], row["label"], row["version"]) == ("odd", "odd", each.candidate().key)
