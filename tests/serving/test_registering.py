"""A version exists only of what was loaded as anybody would load it and answered as it was judged."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from aiohttp import web

from leastwise.errors import BadInput
from leastwise.record.published import candidate_files
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.serving.registering import register
from leastwise.serving.smoke import agreement
from leastwise.use_case.task import Classification, Extraction, FreeText
from tests.servers.web_server import served
from tests.serving.odd_or_even import RIGHT, TEXTS, Model, judged


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = Model()
    with served(web.post("/v1/chat/completions", model.answer)) as address:
        yield model, f"{address}/v1"


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


KILLED = """
import json, os, shutil, signal, sys
from mlflow import MlflowClient
from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.run_id import RunId
from leastwise.serving import smoke
from leastwise.serving.registering import register
from tasks.session.workspace import open_workspace
from tests.servers.warm_process import SMOKE, WarmProcess


def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def before(method, call):
    real, calls = getattr(MlflowClient, method), []

    def counted(*arguments, **named):
        calls.append(1)
        return killed() if len(calls) == call else real(*arguments, **named)

    setattr(MlflowClient, method, counted)


def in_the_files():
    copyfile, upload, copied = shutil.copyfile, MlflowClient.log_model_artifacts, []

    def copy(*files, **how):
        copied.append(1)
        return killed() if len(copied) == 4 else copyfile(*files, **how)

    def log(*arguments):
        shutil.copyfile = copy
        upload(*arguments)

    MlflowClient.log_model_artifacts = log


PLACES = {
    "in the files": in_the_files,
    "before contents.json": lambda: before("log_model_artifacts", 2),
    "before the version": lambda: before("create_model_version", 1),
    "before the alias": lambda: before("set_registered_model_alias", 1),
    "before the entry is closed": lambda: before("set_terminated", 1),
    "nowhere": lambda: None,
}
run_id = sys.argv[1]
smoke.subprocess = WarmProcess(*SMOKE)
smoke.subprocess.started()  # before any child is made, and shared by all: only one of them runs at a time
for place in map(str.strip, sys.stdin):
    child = os.fork()  # nothing is open yet: importing all of it anew for each would take seconds
    if not child:
        PLACES[place]()
        run = StageRun.read(connect(), run_id)
        Registry(run.client, "registered").promote(register(open_workspace(RunId(run.parent_id)), run), "passed")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_kill_of_register_and_promote_leaves_nothing_half_registered_and_a_rerun_finishes(
    home: Path, tmp_path: Path, model: Any
) -> None:
    _, base_url = model
    _, run = judged(tmp_path, base_url, RIGHT)
    registry = Registry(run.client, "registered")
    promoting = subprocess.Popen(
        [sys.executable, "-c", KILLED, run.id],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def killed(place: str) -> bool:
        assert promoting.stdin and promoting.stdout
        print(place, file=promoting.stdin, flush=True)
        return int(promoting.stdout.readline()) == -signal.SIGKILL

    for place in ("in the files", "before contents.json"):
        assert killed(place) and registry.aliases() == {} and registry.version_of(run) is None
        with pytest.raises(Exception, match="no whole bundle"):
            candidate_files.load(f"models:/{run.tag(MODEL_ID)}")
    assert killed("before the version") and registry.aliases() == {} and registry.version_of(run) is None
    assert killed("before the alias") and registry.aliases() == {} and registry.version_of(run) == "1"
    assert [move.finished for move in registry.log()] == [False], "written down before it is done"
    assert killed("before the entry is closed") and registry.aliases() == {"champion": "1"}
    assert not killed("nowhere")
    assert [(move.after, move.finished) for move in registry.log()] == [("1", True)]
    assert len(run.client.search_model_versions("name = 'registered'")) == 1
    assert registry.aliases() == {"champion": "1"}
    assert [path.name for path in (home / "registering").iterdir()] == ["lock"], "what the kills left is removed"
    assert promoting.stdin
    promoting.stdin.close()
    promoting.wait(30)


def test_an_answer_agrees_with_what_was_logged_where_it_says_the_same() -> None:
    record = Extraction(instruction="Say.", kind="extraction", json_schema={"type": "object", "properties": {}})
    text = FreeText(instruction="Say.", kind="free_text")
    label = Classification(instruction="Say.", labels=("odd", "even"))
    assert agreement(record, ['{"a": 1, "b": 2}', "x"], ['{"b":2,"a":1} ', '{"a": 1}']) == 0.5
    assert agreement(text, ["Yes,  it is.", "no"], ["yes it is", "yes"]) == 0.5
    assert agreement(label, ["Odd.", "even"], ["odd", "odd"]) == 0.5
    assert agreement(label, [], []) == 1.0
