"""A process of ours from start to end: its log, whether it is ready, and its end with all that it started.

It knows no server and no model, and restarts nothing. Ports and addresses are those of this machine's loopback.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPResponse
from pathlib import Path

import psutil

from leastwise.errors import BadInput
from leastwise.stores.shipped import ROOT

LOG_TAIL_CHARACTERS = 2000
POLL_S = 0.05


class StartError(RuntimeError):
    """A process ended before it was ready, or took too long; the message carries the end of its log."""


def start(
    command: list[str],
    log: Path,
    environment: Mapping[str, str],
    own_session: bool = False,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command in the repository's folder, all it says into `log`; `environment` is the whole of it.

    `own_session`: closing the terminal leaves it. `pass_fds`: open files (a listening socket) that it inherits.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=own_session,
            pass_fds=tuple(pass_fds),
        )


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str], stop_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process for as long as the block lasts; `environment` adds to ours."""
    child = start(command, log, {**os.environ, **environment})
    try:
        yield child
    finally:
        if child.poll() is None:  # else its id may be another process's by now
            with contextlib.suppress(psutil.NoSuchProcess):
                end(psutil.Process(child.pid), stop_s)
        child.wait()


@contextlib.contextmanager
def serving(
    command: list[str], log: Path, environment: Mapping[str, str], url: str, start_s: float, stop_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """As `running`, for a model server that says at `url`/health when it is ready; else StartError."""
    with running(command, log, environment, stop_s) as child:
        wait_until_ready("the model server", lambda: is_up(f"{url}/health"), lambda: status_of(child), log, start_s)
        yield child


def wait_until_ready(
    name: str,
    is_ready: Callable[[], bool],
    how_it_ended: Callable[[], str | None],
    log: Path,
    timeout_s: float,
    poll_s: float = POLL_S,
) -> None:
    """Until it is ready; StartError where `how_it_ended` says something first, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if ending := how_it_ended():
            raise StartError(f"{name} {ending}; {tail(log)}")
        if is_ready():
            return
        if time.monotonic() > deadline:
            raise StartError(f"{name} was not ready in {timeout_s:.0f} s; {tail(log)}")
        time.sleep(poll_s)


def status_of(child: subprocess.Popen[bytes]) -> str | None:
    """How a child of this process ended; None while it runs."""
    return None if child.poll() is None else f"ended with status {child.returncode}"


def tail(log: Path) -> str:
    """The end of a log, with its name."""
    return f"end of {log}:\n{log.read_text(errors='replace')[-LOG_TAIL_CHARACTERS:].strip()}"


def end(process: psutil.Process, within_s: float) -> None:
    """End a process and what it started: asked first, killed after `within_s`."""
    family = [process, *_children(process)]
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    if not _are_gone(family, within_s):
        for each in family + _children(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        _are_gone(family, within_s)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. A container's first process may never reap what ended, so a zombie counts as gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def marked(variable: str, value: str) -> list[psutil.Process]:
    """The processes of this user that were started with this value of a variable, and what they started; oldest
    first.
    """
    found: list[tuple[float, int, psutil.Process]] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(found, key=lambda each: each[:2])]


def free_port(port: int | None, remedy: str = "free it or name another") -> int:
    """This port of the loopback, or any that is free; BadInput with the remedy where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise BadInput(f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); {remedy}") from error
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def opened(url: str, key: str = "") -> Iterator[HTTPResponse]:
    """The answer of an address of this machine; a proxy, which cannot reach our loopback, is not asked."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.addheaders = [("Authorization", f"Bearer {key}")] if key else []
    with direct.open(url, timeout=5.0) as answer:
        yield answer


def is_up(url: str) -> bool:
    """Whether a server answers there. One that asks who we are (401) is up."""
    try:
        with opened(url) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, TimeoutError):
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _are_gone(processes: list[psutil.Process], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
