"""Endpoints that stay: written down before they start, told by pid and start time, pinned, measured, ended."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
from aiohttp import web

from infra.champions import Champions
from leastwise.answering.workspace import Workspace
from leastwise.engines import processes
from leastwise.engines.processes import StartError
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.client import connect
from leastwise.record.deployed.load_report import load_of
from leastwise.record.registry import Registry
from leastwise.record.run import DEPLOYED, ENDPOINT, NOTE
from leastwise.record.stage_run import StageRun
from leastwise.serving.deployed import entries, lookup, starting
from leastwise.serving.deployed.deploying import deploy, may_be_deployed
from leastwise.serving.settings import EndpointSettings
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from tasks.self_host import measured_already
from tasks.serving import deploy as tasks_deploy
from tasks.serving.serve import serve_champion
from tests.servers.web_server import chat_completion, served
from tests.serving.endpoints import wait_for
from tests.serving.relay import Engine, running_engine
from tests.serving.test_server import use_case
from tests.workspaces import case_file, log_stage, opened, quality

OPENING = "tests.serving.relay:open_version"
QUICK = {"poll_s": 0.2, "trace_rate": 0.0, "drain_s": 5.0, "traffic_log": ""}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    """A registered model with three versions, none of which is champion; what was started for it is ended."""
    made = Registry(connect(), "toy")
    made._create_model()
    for number in range(3):
        made.client.create_model_version("toy", source="file:///nowhere", run_id=f"run{number}")
    yield made
    for entry in entries.every():
        entries.end(entry)


def wanted(registry: Registry, version: str, port: int = 0, **more: Any) -> starting.Wanted:
    settings = EndpointSettings.model_validate(QUICK | {"port": port})
    pin = starting.pinned(registry, version)
    return starting.Wanted("toy", version, registry.run_of(version) or "", settings, pin=pin, opening=OPENING, **more)


def answer(entry: entries.Entry, text: str = "a") -> str:
    reply = httpx.post(f"{entry.url}/invocations", json={"inputs": [text]}, timeout=30)
    return str(reply.json()["predictions"][0]["answer"])


class Killed(BaseException):
    """As SIGKILL: nothing after it happens."""


def killed_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Whoever starts an endpoint is killed before it writes for that time."""
    write, written = entries.write, [0]

    def until(entry: entries.Entry) -> None:
        written[0] += 1
        if written[0] == number:
            raise Killed
        write(entry)

    patch.setattr(entries, "write", until)


def test_an_endpoint_outlives_kills_and_follows_the_champion_once_that_is_moved(
    engine: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, 2)  # it was started, and nobody wrote down its process
            starting.ensure(wanted(registry, "2", taken))
        found = starting.ensure(wanted(registry, "2", taken))
        assert not found.is_new and found.entry.process is None and found.entry.living(), "it is found by its mark"
        starting.wait_for(found.entry, 60)
    entry = found.entry
    assert taken < entry.port < taken + starting.PORTS_TRIED, "the next that is free"
    assert answer(entry) == "2: a" and entry.serves() == {"champion": "2"}, "measured, and no champion"
    assert [each.version for each in lookup.of_registry(registry)] == ["2"] and not lookup.with_champion(registry)

    process = entry.living()
    assert process is not None and os.getsid(process.pid) == process.pid, "a session of its own"
    process.kill()
    wait_for(lambda: not entry.living())
    assert entries.living() == []
    again = starting.ensure(wanted(registry, "2", taken))
    assert again.is_new and again.entry.port == entry.port and again.entry.process is not None, "where it was before"
    entry = again.entry
    starting.wait_for(entry, 60)

    registry.promote("3", "better")
    wait_for(lambda: answer(entry) == "3: a")
    registry.promote("1", "another")
    registry.rollback("no")
    wait_for(lambda: answer(entry) == "3: a")
    (one,) = [each for each in psutil.Process(entry.process.pid).children() if "worker" in " ".join(each.cmdline())]
    one.kill()
    wait_for(lambda: entry.serves() == {"champion": "3"}, within_s=60)
    assert answer(entry) == "3: a", "a worker that starts anew is not pinned to what the alias has left"
    assert lookup.with_champion(registry) == entry and lookup.with_version(registry, "2") == entry
    entries.end(entry)
    assert entries.every() == [] and not processes.marked(entries.MARK, entry.mark)


def test_one_that_does_not_start_is_told_by_its_last_words_and_leaves_nothing(
    engine: Engine, registry: Registry
) -> None:
    engine.broken.add("2")
    entry = starting.ensure(wanted(registry, "2")).entry
    with pytest.raises(StartError, match=r"version 2 of toy has no weights.*\(the whole of it is in .*toy-2\.log\)"):
        starting.wait_for(entry, 60)
    assert entries.every() == [] and not processes.marked(entries.MARK, entry.mark)


def test_one_that_was_started_only_to_be_measured_ends_with_whoever_started_it(
    engine: Engine, registry: Registry
) -> None:
    asked = wanted(registry, "2", stays=False)
    starter = os.fork()
    if starter == 0:
        starting.ensure(asked)
        os._exit(0)  # as if it were killed
    assert os.waitpid(starter, 0)[1] == 0
    (entry,) = entries.every("toy")
    assert not entry.stays and lookup.of_registry(registry) == []
    wait_for(lambda: not processes.marked(entries.MARK, entry.mark), within_s=60)


def test_an_intent_without_a_process_is_no_endpoint(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(processes, "start", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        starting.ensure(wanted(registry, "2"))
    (intent,) = entries.every("toy")
    assert intent.process is None and not intent.living() and entries.living() == []
    entries.end(intent)
    assert entries.every() == []


def forget() -> None:
    """What was written of this very process, before anything ends it."""
    for file in (storage.home() / entries.FOLDER).glob("*.json"):
        file.unlink()


def entry_of(process: int, started: float, **more: Any) -> entries.Entry:
    written = {"name": "toy", "pid": process, "started": started}
    fields = {"name": "toy", "version": "2", "run_id": "run1", "host": "127.0.0.1", "port": 9, "mark": "m"}
    return entries.Entry.model_validate(fields | {"process": written} | more)


def test_a_later_process_with_the_same_id_is_not_the_endpoint_and_is_spared(registry: Registry) -> None:
    started = psutil.Process().create_time()
    assert entry_of(os.getpid(), started).living() is not None
    later = entry_of(os.getpid(), started - 3600)
    entries.write(later)
    assert later.living() is None
    entries.end(later)
    assert entries.every() == []


def test_a_port_where_an_endpoint_of_ours_answers_is_told_by_its_name(registry: Registry, tmp_path: Path) -> None:
    registry.promote("1", "first")
    entries.write(entry_of(os.getpid(), psutil.Process().create_time(), port=8123))
    with pytest.raises(BadInput, match=r"settings\.port: at http://127\.0\.0\.1:8123 the endpoint of toy answers"):
        serve_champion.fn(use_case(tmp_path), EndpointSettings(port=8123))
    forget()


def test_the_same_version_of_another_registry_is_another_one(registry: Registry) -> None:
    entries.write(entry_of(os.getpid(), psutil.Process().create_time(), run_id="elsewhere"))
    assert lookup.of_registry(registry) == [] and lookup.with_version(registry, "2") is None
    with pytest.raises(BadInput, match="in another registry runs there; end it"):
        starting.ensure(wanted(registry, "2"))
    forget()


# -- the last act of self_host ----------------------------------------------------------------------------------------

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
TEXTS = [f"number {n}" for n in range(12)]
RIGHT = ["odd" if n % 2 else "even" for n in range(len(TEXTS))]


async def odd_or_even(request: web.Request) -> web.Response:
    last = str((await request.json())["messages"][-1]["content"]).split()[-1]
    return chat_completion("m", "odd" if last.isdecimal() and int(last) % 2 else "even", 20, 1)


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[Workspace, StageRun]]]:
    """A climb whose self_host passed, on a machine of our own that answers over HTTP; its `hosting` as given."""
    with served(web.post("/v1/chat/completions", odd_or_even)) as address:
        yield lambda lower=0.8, **hosting: passed(tmp_path, f"{address}/v1", lower, hosting)
    for entry in entries.every():
        entries.end(entry)


def passed(folder: Path, base_url: str, lower: float, hosting: dict[str, Any]) -> tuple[Workspace, StageRun]:
    ids = [f"r{n}" for n in range(len(TEXTS))]
    pd.DataFrame({"id": ids, "text": TEXTS, "label": RIGHT}).to_parquet(folder / "gate.parquet")
    uri = "hf://team/model"
    model = {"uri": uri, "price": PRICE, "base_url": base_url, "venue": "self_host", "served_name": "m", "host": None}
    case: dict[str, Any] = {
        "name": "own",
        "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet", "mask": ["email"]},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [model]},
        "hosting": {"load_seconds": 0.1, "load_concurrency": 2, **hosting},
        "approvals": {"self_host": "granted"},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    candidate = Candidate(stage="self_host", model=uri, venue="self_host", prompt=Prompt(system="Odd or even?"))
    rows = [
        {
            "id": each,
            "input": text,
            "expected": right,
            "answer": right,
            "score": 1.0,
            "set": "gate",
            "from_store": False,
        }
        for each, text, right in zip(ids, TEXTS, RIGHT, strict=True)
    ]
    return work, log_stage(work, candidate, quality(lower, 1.0), {"requests_per_s": 1e6}, rows)


def test_what_passed_is_left_running_with_its_load_report_and_a_promotion_needs_no_restart(
    own: Callable[..., tuple[Workspace, StageRun]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        work, run = own(endpoint="process", endpoint_port=taken, usd_per_month_per_machine=100)
        registry = Registry(run.client, "own")
        tasks_deploy.deploy.fn(work.run.id, run.id)
    run = run.again()
    assert f"port {taken} was taken" in run.tag(DEPLOYED)
    (entry,) = entries.living()
    assert run.tag(ENDPOINT) == entry.url and f"Version 1 is being served: {entry.url}/v1" in run.tag(DEPLOYED)
    assert answer(entry, "number 3") == "odd" and registry.aliases() == {}
    assert run.figures["load.requests_per_s"] > 1 and run.figures["load.p95_ms_at_1"] > 0
    assert run.figures["load.requests_per_s_within_bound"] == run.figures["load.requests_per_s"]
    assert run.has_file("load.png") and run.read_json("load.json")["columns"][0] == "in flight"
    assert "less than the gate priced" in load_of(run) and "The verdict stands" in run.tag(NOTE)
    assert run.verdict == "PASS" and 0 < work.budget.usd_spent < 0.1, "the machine's seconds"
    assert work.budget.calls == 0, "a machine of one's own is asked for nothing"
    wait_for(lambda: list((home / "endpoint" / "own-load").glob("*")))
    asked = table_files.read_table(home / "traffic" / "own") if (home / "traffic" / "own").exists() else pd.DataFrame()
    assert len(asked) <= 1, "what was asked to measure it is no traffic"

    tasks_deploy.deploy.fn(work.run.id, run.id)
    assert entries.living() == [entry] and run.again().tag(ENDPOINT) == entry.url
    assert "is being served already" in run.again().tag(DEPLOYED)
    assert (
        run.again().tag(NOTE).count("### Its endpoint under load")
        == run.again().tag(NOTE).count("### Its endpoint\n")
        == 1
    )
    assert not tasks_deploy.was_cut_off(work.run.id) and measured_already(work.run.id) == run.id

    linked = work.run.link(run)
    assert deploy(work, linked).url == entry.url and registry.version_of(linked) is None, "measured and registered once"
    assert not linked.tag(DEPLOYED) and linked.figures["load.requests_per_s"] == run.figures["load.requests_per_s"]

    champions = Champions()
    assert champions.look() == [] and lookup.is_pinned(registry, entry)
    registry.promote("1", "it passed")
    assert champions.look() == [entry] and entries.living() == [entry], "one serves it already"
    entries.end(entry)
    monkeypatch.setattr("infra.champions.FIRST_AGAIN_S", 600.0)
    (kept,) = champions.look()
    starting.wait_for(kept, 60)
    assert answer(kept, "number 4") == "even" and kept.pin is None
    process = kept.living()
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert champions.look() == [], "one that ended a moment ago is not started at once"


def test_an_endpoint_that_is_not_to_stay_is_measured_and_ended(
    own: Callable[..., tuple[Workspace, StageRun]], engine: Engine
) -> None:
    work, run = own()
    Registry(run.client, "own").register(run)
    done = deploy(work, run, OPENING)
    assert done.url == "" and "hosting.endpoint is none" in done.words and entries.every() == []
    assert run.again().figures["load.requests_per_s"] > 10
    assert deploy(work, run.again()).words == "No endpoint was started: what it carries was measured before."


def test_what_is_in_the_way_is_said_and_the_verdict_stands(
    own: Callable[..., tuple[Workspace, StageRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_ENDPOINT_KEYS", "a-key-of-sixteen-characters")
    work, run = own(endpoint="process", endpoint_host="0.0.0.0")
    monkeypatch.delenv("LEASTWISE_ENDPOINT_KEYS")  # the machine that serves has none
    tasks_deploy.deploy.fn(work.run.id, run.id)
    again = run.again()
    assert again.tag(ENDPOINT) == "" and again.verdict == "PASS" and again.is_finished
    assert "hosting.endpoint_host: 0.0.0.0 can be reached by others" in again.tag(DEPLOYED)
    assert Registry(run.client, "own").version_of(run) is None and entries.every() == []
    assert not tasks_deploy.was_cut_off(work.run.id), "it is not tried for ever"


def test_what_the_gate_was_not_sure_of_is_deployed_on_a_persons_word_alone(
    own: Callable[..., tuple[Workspace, StageRun]],
) -> None:
    work, run = own(lower=0.5, endpoint="process")
    assert run.verdict == "UNDECIDED" and not may_be_deployed(work, run)
    run.write(tags={"leastwise.resolution": "pass"})
    assert not may_be_deployed(work, run.again()) and not tasks_deploy.was_cut_off(work.run.id)
    work.run.log_answer("self_host", "granted", "Ada", "good enough")
    assert may_be_deployed(work, run.again()) and tasks_deploy.was_cut_off(work.run.id), "now it is to be"
    work.run.log_answer("self_host", "rejected", "Ada", "not good enough")
    assert not may_be_deployed(work, run.again())
