"""An endpoint as processes: workers that share a socket and follow a real registry, and what a kill leaves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from leastwise.errors import BadInput
from leastwise.record.published.moves import STARTED
from leastwise.record.registry import Registry
from leastwise.serving import server, worker
from leastwise.serving.counters import Counters
from leastwise.serving.settings import EndpointSettings
from leastwise.serving.traffic import Traffic
from leastwise.stores.tables import table_files
from tests.serving.endpoints import three_versions, wait_for
from tests.serving.relay import Engine, running_engine

ROOT = Path(__file__).parents[2]
OPENING = "tests.serving.relay:open_version"
SETTINGS = {"port": 0, "trace_rate": 0.0, "poll_s": 0.5, "drain_s": 5.0}
COMMAND = """
import sys
from functools import partial
import flows.running.endings as endings
import tasks.serving.serve as serving
from leastwise.part import changed
from leastwise.serving.settings import EndpointSettings
serving.endpoint = partial(serving.endpoint, opening=sys.argv[2])
made = serving.serve_champion.fn(sys.argv[1], changed(EndpointSettings(), sys.argv[3]))
endings.finish(made.fields(), made.exit_status)
"""

ALONE = """
import sys
from leastwise.serving import server
from leastwise.serving.settings import EndpointSettings
settings = EndpointSettings(port=int(sys.argv[1]), trace_rate=0, poll_s=0.5)
with server.endpoint("toy", (), settings, sys.argv[2]) as running:
    running.wait()
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def registry(home: Path) -> Registry:
    """A registered model with three versions, the first of which is champion."""
    made = three_versions()
    made.promote("1", "first")
    return made


def ask(url: str, text: str) -> httpx.Response:
    return httpx.post(f"{url}/invocations", json={"inputs": [text]}, timeout=30)


def answer(url: str, text: str) -> str:
    return str(ask(url, text).json()["predictions"][0]["answer"])


def started(command: list[str], url: str) -> subprocess.Popen[str]:
    made = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: server.processes.is_up(f"{url}/health") or made.poll() is not None, within_s=60)
    return made


def workers_of(endpoint: subprocess.Popen[str]) -> list[psutil.Process]:
    found = [each for each in psutil.Process(endpoint.pid).children() if server.processes.is_alive(each)]
    return [each for each in found if "leastwise.serving.worker" in each.cmdline()]


def test_the_command_follows_promotions_outlives_a_worker_and_ends_in_good_order(
    engine: Engine, registry: Registry, home: Path, tmp_path: Path
) -> None:
    port = server.processes.free_port(None)
    url = f"http://127.0.0.1:{port}"
    changes = f"port={port}, workers=2, trace_rate=0, poll_s=0.5"
    running = started([sys.executable, "-c", COMMAND, use_case(tmp_path), OPENING, changes], url)
    with httpx.Client(trust_env=False, timeout=30) as client:
        serving = 'leastwise_serving{{alias="champion",version="{}"}} 2.0'

        def served_by_both(version: str) -> bool:
            return serving.format(version) in client.get(f"{url}/metrics").text

        wait_for(lambda: served_by_both("1"), within_s=60)
        assert {answer(url, f"text {number}") for number in range(3)} == {f"1: text {at}" for at in range(3)}

        registry.promote("2", "better")
        moved = time.monotonic()
        wait_for(lambda: served_by_both("2"))
        assert time.monotonic() - moved < 5 and answer(url, "a") == "2: a"

        engine.broken.add("3")
        registry.promote("3", "does not start")
        wait_for(lambda: STARTED in registry.client.get_model_version("toy", "3").tags)
        assert answer(url, "a") == "2: a"
        entry = registry.client.get_run(registry.log()[-1].run_id)
        assert "did not start" in entry.data.tags[STARTED] and "champion 2 goes on" in entry.data.tags[STARTED]
        assert registry.aliases() == {"champion": "3", "predecessor": "2"} and registry.log()[-1].finished

        registry.rollback("it did not start")
        time.sleep(1)  # what a kill may take
        killed = workers_of(running)[0].pid
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in [each.pid for each in workers_of(running)] and len(workers_of(running)) == 2)
        assert answer(url, "hello jane@example.com") == "2: hello jane@example.com"
    running.terminate()
    said, _ = running.communicate(timeout=60)
    ending = json.loads(said.strip().splitlines()[-1])
    assert running.returncode == 0
    assert (ending["outcome"], ending["requests"], round(ending["usd_spent"], 6)) == ("ended", 6, 0.006)
    texts = list(table_files.read_table(home / "traffic" / "toy")["text"])
    assert sorted(texts) == ["a", "a", "hello [email]", "text 0", "text 1", "text 2"]


def test_an_endpoint_killed_under_traffic_leaves_no_worker_and_loses_no_row_older_than_a_second(
    engine: Engine, registry: Registry, home: Path
) -> None:
    port = server.processes.free_port(None)
    url = f"http://127.0.0.1:{port}"
    running = started([sys.executable, "-c", ALONE, str(port), OPENING], url)
    answered: dict[str, float] = {}
    is_over = threading.Event()

    def ask_on() -> None:
        with contextlib.suppress(httpx.HTTPError):
            while not is_over.is_set():
                text = f"text {uuid.uuid4().hex}"
                assert answer(url, text) == f"1: {text}"
                answered[text] = time.monotonic()

    asking = [threading.Thread(target=ask_on) for _ in range(4)]
    for each in asking:
        each.start()
    time.sleep(2.5)
    workers, killed_at = workers_of(running), time.monotonic()
    workers[0].kill()  # the rows are in nobody's hands but the journal's
    running.kill()
    is_over.set()
    running.communicate()
    for each in asking:
        each.join()
    wait_for(lambda: not any(server.processes.is_alive(each) for each in workers), within_s=30)
    assert not (home / "traffic").exists()
    following = Traffic("toy", (), EndpointSettings(trace_rate=0, part_every_s=1), Counters())
    wait_for(lambda: list((home / "traffic").rglob("*.parquet")))
    following.close()
    kept = list(table_files.read_table(home / "traffic" / "toy")["text"])
    sure = {text for text, at in answered.items() if at < killed_at - 1}
    assert len(sure) > 10 and sure <= set(kept) and len(kept) == len(set(kept))


def test_what_cannot_be_served_is_refused_in_words_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEASTWISE_ENDPOINT_KEYS", raising=False)
    opened = server.endpoint("toy", (), EndpointSettings(host="0.0.0.0"), OPENING)
    with pytest.raises(BadInput, match=r"0\.0\.0\.0 can be reached by others and no key is set"), opened:
        pass
    with server.listening(EndpointSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        opened = server.endpoint("toy", (), EndpointSettings(port=port), OPENING)
        with pytest.raises(BadInput, match=f"127.0.0.1:{port} cannot be used"), opened:
            pass


def test_a_worker_without_a_champion_says_what_to_do_and_ends_as_bad_input(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {each: signal.getsignal(each) for each in worker.SIGNALS}
    with server.listening(EndpointSettings(port=0)) as listening:
        work = worker.Work(name="toy", settings=EndpointSettings.model_validate(SETTINGS), socket=listening.detach())
    monkeypatch.setenv(worker.VARIABLE, work.model_dump_json())
    try:
        assert worker.main() == worker.BAD_INPUT
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)
    assert "there is no champion; promote" in capsys.readouterr().err.splitlines()[-1]


def use_case(folder: Path) -> str:
    """A use case's file, whose name is the registered model's."""
    (folder / "gate.csv").write_text("id,text,label\n1,a,x\n")
    case = {
        "name": "toy",
        "task": {"instruction": "Say x or y.", "labels": ["x", "y"]},
        "data": {"gate": "gate.csv", "mask": ["email"]},
        "requirements": {"quality": {"bound": 0.5, "margin": 0.2}},
        "allow_no_test": True,
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini"}]},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(case))
    return str(folder / "toy.yaml")
