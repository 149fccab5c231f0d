"""Every measured candidate is an MLflow model that loads, registered or not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.bundle import packing
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import CachePolicy, Candidate, Prompt
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.record.stage_run import StageRun
from leastwise.serving import smoke
from leastwise.serving.registering import register
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}


async def told(request: web.Request) -> web.Response:
    number = int((await request.json())["messages"][-1]["content"].split()[-1])
    return chat_completion("m", "odd" if number % 2 else "even", 20, 1)


def climbed(folder: Path, base_url: str, **more: Any) -> Workspace:
    """A climb of thirty numbers; what its traffic repeats is among them."""
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
CACHED = PLAIN.model_copy(update={"stage": "cache", "cache": CachePolicy(exact=True)})
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


def test_a_cache_that_was_judged_on_traffic_is_registered_and_answers_that_traffic_as_judged(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with served(web.post("/v1/chat/completions", told)) as address:
        rows = pd.DataFrame({"id": [f"t{n}" for n in range(60)], "text": [f"number {n % 40}" for n in range(60)]})
        rows["label"] = ["odd" if n % 40 % 2 else "even" for n in range(60)]
        rows.to_parquet(tmp_path / "traffic.parquet")
        data = {"gate": "gate.parquet", "traffic": "traffic.parquet"}
        work = climbed(tmp_path, f"{address}/v1", data=data)
        run = evaluate_stage(work, "cache", [CACHED]).run
        # Production's own cache must not answer for the model: it is not even asked.
        monkeypatch.setenv("LEASTWISE_REDIS_URL", "redis://127.0.0.1:9")
        asked: list[str] = []
        answers_of = smoke.answers_of
        monkeypatch.setattr(
            smoke, "answers_of", lambda uri, texts, *how: asked.extend(texts) or answers_of(uri, texts, *how)
        )
        assert register(work, run) == "1" and len(asked) == len(set(asked)) > 10


def refused(work: Workspace, run: StageRun, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        register(work, run)
    assert Registry(run.client, "measured").version_of(run) is None


def test_what_cannot_be_served_as_it_was_measured_gets_no_version_and_says_why(
    home: Path, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    with served(web.post("/v1/chat/completions", told)) as address:
        own = {"uri": base.as_uri(), "price": PRICE, "context_tokens": 512}
        hosted = {"uri": "openai:m", "price": PRICE, "base_url": f"{address}/v1"}
        work = climbed(tmp_path, address, models={"candidates": [hosted, own]})
        served_here = PLAIN.model_copy(
            update={"model": base.as_uri(), "revision": work.catalogue.revision(base.as_uri())}
        )
        here = evaluate_stage(work, "prompt", [served_here]).run
        template = base / "chat_template.jinja"
        template.write_text(template.read_text() + "{# another one #}")
        refused(work, here, r"tokenizer-\w+/chat_template.jinja changed since it was measured.*climb again")
        shutil.rmtree(base)
        refused(work, here, "base")

        there = evaluate_stage(work, "rag", [PLAIN.model_copy(update={"stage": "rag"})]).run
        monkeypatch.delenv("OPENAI_API_KEY")
        for way in (packing.pack, packing.refer):  # a key is of whoever serves
            way(work, there.candidate(), tmp_path / way.__name__)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        skipped = work.run.open_stage("cache", "none")
        skipped.close()
        refused(work, skipped, "has logged no candidate")
