"""Everything on this machine: a Prefect server, an MLflow server, a worker a pool and every deployment of prefect.yaml.

`python -m infra.local up` starts them and returns; `down` ends exactly what `up` started, and what that started in turn.
It listens on 127.0.0.1 only, sets up no accounts and restarts nothing that dies: infra/README.md says what to use then.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

import flows  # noqa: F401 - keeps every process started here quiet and its state under the state directory
from leastwise.errors import BadInput
from leastwise.stores import storage

ROOT = Path(__file__).parents[1]
POOLS = {"cpu": "10", "gpu": "1"}  # flow runs at a time; two trainings at once would starve each other
READY_S, DEPLOY_S, STOP_S, POLL_S = 180.0, 300.0, 20.0, 0.2
LOG_TAIL_CHARACTERS = 2000


class Started(BaseModel):
    """A process as `up` left it; the start time (seconds since 1970) tells it from a later one with the same id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    started: float

    def process(self) -> psutil.Process | None:
        """The living process, or None where it has ended, whoever has its id by now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 1.0 and _is_alive(process):
                return process
        return None


class Up(BaseModel):
    """What is up, in the order of its start; kept in up.json under the state directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefect_port: int
    mlflow_port: int
    processes: tuple[Started, ...] = ()

    @property
    def prefect_url(self) -> str:
        """Address of the Prefect UI."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI, and its tracking URI."""
        return f"http://127.0.0.1:{self.mlflow_port}"


class StartError(RuntimeError):
    """A server or a worker ended or took too long, or the deploying failed; the message carries the end of its log."""


def up() -> Up:
    """Start what is not up yet; a failure on the way ends what was started. BadInput for a port that is taken."""
    running = _running()
    if running and all(each.process() for each in running.processes):
        _say(f"leastwise: already up; `make down` ends it\n{_how_to(running)}")
        return running
    down()
    plan = Up(prefect_port=_port("PREFECT_PORT", 4200), mlflow_port=_port("MLFLOW_PORT", 5000))
    if plan.prefect_port == plan.mlflow_port:
        raise BadInput(f"PREFECT_PORT and MLFLOW_PORT are both {plan.prefect_port}; set one of them to another port")
    storage.check_writable(storage.home())
    try:
        done = _start_all(plan)
    except BaseException:  # Ctrl-C too: half of it running would be in the way of the next try
        down()
        raise
    _say(_how_to(done))
    return done


def down() -> None:
    """End what `up` started, workers before the servers they report to, and wait until it is gone."""
    running = _running()
    for each in reversed(running.processes if running else ()):
        process = each.process()
        if process:
            _stop(process)
    _record().unlink(missing_ok=True)


def _start_all(plan: Up) -> Up:
    environment = _environment(plan)
    _say("leastwise: starting the Prefect server and the MLflow server …")
    plan = _start(plan, "prefect", _prefect_server(plan), environment)
    plan = _start(plan, "mlflow", _mlflow_server(plan), environment)
    _wait(plan, "prefect", lambda: _answers(f"{plan.prefect_url}/api/health"))
    for pool, limit in POOLS.items():  # a worker makes its pool where there is none, and leaves one that is there alone
        worker = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", f"{pool}-1"]
        plan = _start(plan, f"worker-{pool}", [*worker, "--limit", limit], environment)
    for pool in POOLS:
        _wait(plan, f"worker-{pool}", lambda pool=pool: _has_worker(plan, pool))  # type: ignore[misc]
    _say("leastwise: deploying every flow of prefect.yaml …")
    _run("deploy", ["prefect", "--no-prompt", "deploy", "--all"], environment)
    _wait(plan, "mlflow", lambda: _answers(f"{plan.mlflow_url}/health"))
    return plan


def _prefect_server(plan: Up) -> list[str]:
    return ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(plan.prefect_port), "--analytics-off"]


def _mlflow_server(plan: Up) -> list[str]:
    home = storage.home()
    # Artifacts by their own path, not through the server: the demo, which has none, reads and writes the same runs.
    stores = ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--no-serve-artifacts"]
    stores += ["--default-artifact-root", (home / "mlartifacts").as_uri()]
    return ["mlflow", "server", "--host", "127.0.0.1", "--port", str(plan.mlflow_port), "--workers", "1", *stores]


def _environment(plan: Up) -> dict[str, str]:
    home = storage.home()
    foreign = {"PREFECT_PROFILE", "PREFECT_API_KEY"}  # of another server; the profile is not in our PREFECT_HOME
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return kept | {
        "LEASTWISE_HOME": str(home),
        "LEASTWISE_POOLS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # or it starts a dozen processes
        "MLFLOW_TRACKING_URI": plan.mlflow_url,
        "PREFECT_API_URL": f"{plan.prefect_url}/api",
        # Not the database of the demo's own temporary server: two servers on one SQLite file wait for each other.
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect' / 'server.db'}",
        "PREFECT_SERVER_UI_API_URL": f"{plan.prefect_url}/api",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PWD": str(ROOT),  # prefect.yaml takes the workers' directory from it
        "PYTHONPATH": str(ROOT),
    }


def _start(plan: Up, name: str, command: list[str], environment: dict[str, str]) -> Up:
    """Start a process of its own session, so that closing the terminal leaves it, and write it down at once."""
    with _log(name).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started = Started(name=name, pid=child.pid, started=psutil.Process(child.pid).create_time())
    plan = plan.model_copy(update={"processes": (*plan.processes, started)})
    storage.write_bytes(_record(), plan.model_dump_json(indent=1).encode())
    return plan


def _run(name: str, command: list[str], environment: dict[str, str]) -> None:
    with _log(name).open("wb") as log:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=DEPLOY_S,
            )
        except subprocess.TimeoutExpired:
            raise StartError(f"{name} took over {DEPLOY_S:.0f} s; end of {_log(name)}:\n{_tail(name)}") from None
    if ended.returncode:
        raise StartError(f"{name} ended with status {ended.returncode}; end of {_log(name)}:\n{_tail(name)}")


def _wait(plan: Up, name: str, is_ready: Callable[[], bool]) -> None:
    """Until it is ready; StartError where the process of that name ends first or takes longer than READY_S."""
    waited_for = next(each for each in plan.processes if each.name == name)
    deadline = time.monotonic() + READY_S
    while waited_for.process() is None or not is_ready():
        if waited_for.process() is None:
            raise StartError(f"{name} ended before it was ready; end of {_log(name)}:\n{_tail(name)}")
        if time.monotonic() > deadline:
            raise StartError(f"{name} was not ready in {READY_S:.0f} s; end of {_log(name)}:\n{_tail(name)}")
        time.sleep(POLL_S)


def _stop(process: psutil.Process) -> None:
    """End a process and what it started: asked first, killed after STOP_S."""
    family = [process, *_children(process)]
    _signal([process], "terminate")
    if not _gone(family, STOP_S):
        _signal(family + _children(process), "kill")
        _gone(family, STOP_S)


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        children: list[psutil.Process] = process.children(recursive=True)
        return children
    return []


def _signal(processes: list[psutil.Process], kind: Literal["terminate", "kill"]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, kind)()


def _gone(processes: list[psutil.Process], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _is_alive(process: psutil.Process) -> bool:
    # A container's first process may never reap what ended, so a zombie counts as gone.
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _port(variable: str, default: int) -> int:
    given = os.environ.get(variable) or str(default)
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise BadInput(f"{variable}: {given!r} is no port; set it to a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(given)))
        except OSError as error:
            raise BadInput(
                f"port {given} on 127.0.0.1 cannot be used ({error.strerror}); free it, or set {variable} to another"
            ) from None
    return int(given)


def _answers(url: str) -> bool:
    try:
        with _opened(url) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # up, and asks for PREFECT_API_AUTH_STRING, which its own clients take from there
    except (OSError, TimeoutError):
        return False


def _has_worker(plan: Up, pool: str) -> bool:
    try:
        with _opened(f"{plan.prefect_url}/api/work_pools/{pool}") as answer:
            return bool(json.load(answer)["status"] == "READY")
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, TimeoutError):
        return False


@contextlib.contextmanager
def _opened(url: str) -> Iterator[object]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback
    with direct.open(url, timeout=5) as answer:
        yield answer


def _running() -> Up | None:
    return Up.model_validate_json(_record().read_bytes()) if _record().exists() else None


def _record() -> Path:
    return storage.home() / "up.json"


def _log(name: str) -> Path:
    folder = storage.home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _tail(name: str) -> str:
    return _log(name).read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()


def _how_to(running: Up) -> str:
    return (
        f"\n  Prefect  {running.prefect_url}\n  MLflow   {running.mlflow_url}\n\n"
        f"Start a climb: {running.prefect_url}/deployments → customize → Run, or\n"
        f"  PREFECT_API_URL={running.prefect_url}/api .venv/bin/prefect deployment run customize/customize "
        "-p use_case=alert-triage\n"
        f"Logs are in {storage.home() / 'logs'}; `make down` ends everything."
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 2 bad input, 1 something did not start."""
    commands: dict[str, Callable[[], object]] = {"up": up, "down": down}
    if len(arguments) != 1 or arguments[0] not in commands:
        _say("usage: python -m infra.local up|down")
        return 2
    try:
        commands[arguments[0]]()
    except BadInput as error:
        _say(f"leastwise: {error}")
        return 2
    except StartError as error:
        _say(f"leastwise: {error}\nleastwise: nothing was left running")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
