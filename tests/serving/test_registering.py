"""A version exists only of what was loaded as anybody would load it and answered as it was judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.published import candidate_files
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.record.stage_run import StageRun
from leastwise.serving import registering
from leastwise.serving.registering import register
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, log_stage, opened, quality

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
TEXTS = [f"number {n}" for n in range(12)]


class Model:
    """Tells odd from even, the other way round once it has turned."""

    def __init__(self) -> None:
        self.asked, self.has_turned = 0, False

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        number = int((await request.json())["messages"][-1]["content"].split()[-1])
        return chat_completion("m", "odd" if number % 2 != self.has_turned else "even", 20, 1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = Model()
    with served(web.post("/v1/chat/completions", model.answer)) as address:
        yield model, f"{address}/v1"


def judged(folder: Path, base_url: str, answers: list[str]) -> tuple[Workspace, StageRun]:
    """A climb, and a stage of it that was answered so."""
    ids = [f"r{n}" for n in range(len(TEXTS))]
    pd.DataFrame({"id": ids, "text": TEXTS, "label": answers}).to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "registered",
        "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:m", "price": PRICE, "base_url": base_url}]},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    candidate = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Odd or even?"))
    rows = [
        {
            "id": each,
            "input": text,
            "expected": answer,
            "answer": answer,
            "score": 1.0,
            "set": "gate",
            "from_store": False,
        }
        for each, text, answer in zip(ids, TEXTS, answers, strict=True)
    ]
    return work, log_stage(work, candidate, quality(0.8, 1.0), rows=rows)


RIGHT = ["odd" if n % 2 else "even" for n in range(len(TEXTS))]


def test_a_version_that_was_registered_loads_by_its_alias_and_takes_every_shape(
    home: Path, tmp_path: Path, model: Any
) -> None:
    asked, base_url = model
    work, run = judged(tmp_path, base_url, RIGHT)
    version = register(work, run)
    assert asked.asked == len(TEXTS), "every row once, in a process of its own"
    assert 0 < work.budget.usd_spent < 0.01, "which the ledger has"
    assert register(work, run) == version and asked.asked == len(TEXTS), "and not a second time"
    registry = Registry(run.client, "registered")
    registry.promote(version, "passed")
    loaded = mlflow.pyfunc.load_model("models:/registered@champion")
    shapes: list[Any] = [
        pd.DataFrame({"text": ["number 3"]}),
        {"messages": [{"role": "user", "content": "number 3"}]},
        pd.DataFrame({"input": ["number 3"]}),
    ]
    for shape in shapes:
        (row,) = loaded.predict(shape).to_dict("records")
        assert (row["answer"], row["label"]) == ("odd", "odd") and row["usd"] > 0 and row["version"]


def test_one_that_answers_otherwise_than_it_was_judged_gets_no_version(home: Path, tmp_path: Path, model: Any) -> None:
    asked, base_url = model
    work, run = judged(tmp_path, base_url, RIGHT)
    asked.has_turned = True
    with pytest.raises(BadInput, match=r"answers 0% of 12 gate rows as they were judged .*climb again"):
        register(work, run)
    assert Registry(run.client, "registered").version_of(run) is None


def test_one_whose_endpoint_is_gone_gets_no_version_and_says_why(home: Path, tmp_path: Path) -> None:
    work, run = judged(tmp_path, "http://127.0.0.1:9/v1", RIGHT)
    with pytest.raises(BadInput, match=r"cannot be served: .*lost.*the alias stays"):
        register(work, run)
    assert Registry(run.client, "registered").version_of(run) is None


class Killed(BaseException):
    """As SIGKILL: nothing after it happens."""


def test_a_kill_while_files_are_logged_leaves_nothing_that_serves_and_a_rerun_finishes(
    home: Path, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base_url = model
    work, run = judged(tmp_path, base_url, RIGHT)
    log_artifacts = type(run.client).log_model_artifacts

    def until_the_last(client: Any, model_id: str, folder: str, path: str | None = None) -> None:
        if path is not None:
            raise Killed
        log_artifacts(client, model_id, folder)

    with monkeypatch.context() as patch:
        patch.setattr(type(run.client), "log_model_artifacts", until_the_last)
        with pytest.raises(Killed):
            register(work, run)
    with pytest.raises(Exception, match="no whole bundle"):
        candidate_files.load(f"models:/{run.tag(MODEL_ID)}")
    with monkeypatch.context() as patch:
        patch.setattr(registering.Registry, "register", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            register(work, run)
    assert Registry(run.client, "registered").version_of(run) is None
    assert register(work, run) == "1"
