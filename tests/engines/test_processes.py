"""A process is ended with all it started; one that does not come up says why."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from leastwise.engines import processes
from leastwise.errors import BadInput
from leastwise.stores.shipped import ROOT
from tests.servers.web_server import served

FAMILY = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(child.pid, flush=True)
time.sleep(60)
"""
WATCHED = """
import subprocess, sys, time
from leastwise.engines import leftovers
leftovers.watch()
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


def number_in(log: Path) -> int:
    deadline = time.monotonic() + 10
    while not log.read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(log.read_text())


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or not processes.is_alive(psutil.Process(pid)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("manner", ["obeys", "deaf"])
def test_a_process_ends_with_the_block_and_its_children_with_it(tmp_path: Path, manner: str) -> None:
    log = tmp_path / "logs" / "log"
    with processes.running([sys.executable, "-c", FAMILY, manner], log, {}, stop_s=0.3) as process:
        child = number_in(log)
    assert is_gone(process.pid) and is_gone(child)


def test_one_that_ends_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('x' * 3000 + ' no such model'); sys.exit(3)"
    with (
        processes.running([sys.executable, "-c", code], tmp_path / "log", {}, stop_s=1.0) as child,
        pytest.raises(
            processes.StartError, match=r"(?s)the server ended with status 3; end of .*no such model$"
        ) as raised,
    ):
        processes.wait_until_ready(
            "the server", lambda: False, lambda: processes.status_of(child), tmp_path / "log", 10.0
        )
    assert len(str(raised.value)) < 3000


def test_one_that_takes_too_long_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("loading …")
    with pytest.raises(processes.StartError, match=r"(?s)the server was not ready in 0 s; end of .*loading …"):
        processes.wait_until_ready("the server", lambda: False, lambda: None, tmp_path / "log", 0.1)


def test_a_taken_port_is_bad_input_with_the_remedy_and_none_gives_a_free_one() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BadInput, match=r"cannot be used .*; set PREFECT_PORT"),
    ):
        processes.free_port(taken.getsockname()[1], "set PREFECT_PORT")
    assert processes.free_port(None) > 0


@pytest.mark.parametrize(("status", "is_up"), [(200, True), (401, True), (503, False), (204, False)])
def test_a_server_is_up_where_it_answers_or_asks_who_we_are_whatever_proxy_is_set(
    status: int, is_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with served(web.get("/health", answer)) as url:
        assert processes.is_up(f"{url}/health") is is_up
    assert not processes.is_up(f"{url}/health")


def test_what_a_killed_command_left_running_is_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as command:
        assert command.stdout is not None
        left = int(command.stdout.readline())
        os.kill(command.pid, signal.SIGKILL)
    assert is_gone(left)
