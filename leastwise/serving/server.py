"""An endpoint from its first request to its last: one listening socket, and the worker processes that share it.

It answers nothing itself. A worker that dies is started again; asked to end, it asks the workers and waits until their
requests are answered.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import psutil

from leastwise.engines import processes
from leastwise.errors import BadInput
from leastwise.serving import counters
from leastwise.serving.settings import EndpointSettings, keys_of
from leastwise.serving.worker import BAD_INPUT, VARIABLE, Work
from leastwise.stores import storage

log = logging.getLogger(__name__)

LOOK_S = 0.2
FIRST_WAIT_S, MOST_WAIT_S = 0.5, 30.0  # before a worker that died is started again
CLOSING_S = 60.0  # beside the time its requests get: versions are closed, the log and traces written
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a registry that is away is asked again anyway
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True)
class Served:
    """What an endpoint did while it ran. `usd`: dollars of its answers."""

    requests: int
    usd: float


@dataclass
class _Worker:
    """A worker process, and how long to wait before it is started once more."""

    log: Path
    child: subprocess.Popen[bytes] | None = None
    wait_s: float = FIRST_WAIT_S
    again_at: float = 0.0


class Endpoint:
    """A running endpoint; `url` is where it answers."""

    def __init__(self, work: Work, listening: socket.socket, counted: Path) -> None:
        self.work, self._counted = work, counted
        host, port = listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._ending = threading.Event()
        logs = storage.home() / "logs"
        numbers = range(1, work.settings.workers + 1)
        self._workers = [_Worker(logs / f"endpoint-{work.label}-{number}.log") for number in numbers]
        own = {VARIABLE: work.model_dump_json(), counters.SHARED_FOLDER: str(counted)}
        self._environment = {**os.environ, **QUIET, **own}

    def start(self) -> None:
        """Start every worker and wait until one answers; BadInput or StartError with its words where it does not."""
        for worker in self._workers:
            self._start(worker)
        first = self._workers[0]
        timeout_s = self.work.settings.start_timeout_s + 60
        try:
            processes.wait_until_ready("the endpoint", self._is_up, partial(_how_ended, first), first.log, timeout_s)
        except processes.StartError as error:
            if first.child and first.child.poll() == BAD_INPUT:
                raise BadInput(first.log.read_text(errors="replace").strip().splitlines()[-1]) from None
            raise error from None

    def wait(self) -> None:
        """Keep the workers running until `end` is called."""
        while not self._ending.wait(LOOK_S):
            for worker in self._workers:
                self._look_after(worker)

    def end(self) -> None:
        """Let `wait` return."""
        self._ending.set()

    def close(self) -> Served:
        """Ask the workers to end, wait until their requests are answered, and count."""
        self.end()
        running = [worker.child for worker in self._workers if worker.child and worker.child.poll() is None]
        for child in running:
            child.terminate()
        latest = time.monotonic() + self.work.settings.drain_s + CLOSING_S
        for child in running:
            try:
                child.wait(max(0.0, latest - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning(f"worker {child.pid} did not end in time and is killed")
                with contextlib.suppress(psutil.NoSuchProcess):
                    processes.end(psutil.Process(child.pid), 0)
                child.wait()
        answered = counters.total(self._counted, counters.ENDED, status="200")
        return Served(round(answered), counters.total(self._counted, counters.DOLLARS))

    def _start(self, worker: _Worker) -> None:
        command = [sys.executable, "-m", "leastwise.serving.worker"]
        worker.child = processes.start(command, worker.log, self._environment, pass_fds=(self.work.socket,))

    def _look_after(self, worker: _Worker) -> None:
        child, now = worker.child, time.monotonic()
        if child and child.poll() is not None:
            log.warning(f"an endpoint's worker ended with status {child.returncode}; {processes.tail(worker.log)}")
            counters.forget_process(self._counted, child.pid)
            worker.child, worker.again_at = None, now + worker.wait_s
            worker.wait_s = min(worker.wait_s * 2, MOST_WAIT_S)
        elif child is None and now >= worker.again_at:
            self._start(worker)

    def _is_up(self) -> bool:
        return processes.is_up(f"{self.url}/health")


@contextlib.contextmanager
def endpoint(name: str, mask: tuple[str, ...], settings: EndpointSettings, opening: str = "") -> Iterator[Endpoint]:
    """An endpoint that answers, for as long as the block lasts. BadInput for what can be put right, before it starts.

    `opening`: MODULE:FUNCTION that opens a version, where it is not the usual one.
    """
    check_settings(settings)
    with listening(settings) as bound:
        work = Work(name=name, mask=mask, settings=settings, socket=bound.fileno())
        with endpoint_of(work.model_copy(update={"opening": opening}) if opening else work, bound) as made:
            yield made


def check_settings(settings: EndpointSettings) -> None:
    """BadInput where an endpoint could be reached without a key, or could not keep its traffic log."""
    keys_of(settings)
    if settings.traffic_log:
        storage.check_writable(storage.resolve(settings.traffic_log, Path.cwd()))


@contextlib.contextmanager
def endpoint_of(work: Work, bound: socket.socket) -> Iterator[Endpoint]:
    """An endpoint at a socket that listens already, for as long as the block lasts."""
    counted = Path(tempfile.mkdtemp(prefix="leastwise-counts-"))
    made = Endpoint(work, bound, counted)
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(counted, ignore_errors=True)


@contextlib.contextmanager
def until_asked_to_end(made: Endpoint) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the endpoint in good order for as long as the block lasts, a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        made.end()

    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def listening(settings: EndpointSettings) -> Iterator[socket.socket]:
    """A socket that listens where the settings say, for as long as the block lasts; BadInput where it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise BadInput(
                f"settings.port: {where} cannot be used ({error.strerror}); free it or name another"
            ) from None
        bound.listen(2048)
        yield bound


def _how_ended(worker: _Worker) -> str | None:
    return processes.status_of(worker.child) if worker.child else None
