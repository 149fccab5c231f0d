"""Everything on this machine: a Prefect server, an MLflow server, a worker a pool, every deployment of prefect.yaml,
an endpoint for every champion.

`python -m infra.local up` starts them and returns; `down` ends exactly what `up` started, and what that started in
turn. It listens on 127.0.0.1 only, sets up no accounts and restarts nothing that dies: infra/README.md says what to use
then.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from pydantic import Field

import flows  # noqa: F401 - keeps every process started here quiet and its state under the state directory
from leastwise.engines import processes
from leastwise.engines.processes import StartError
from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.record.registry import champions_at
from leastwise.stores import storage
from leastwise.stores.shipped import ROOT

POOLS = {"cpu": "10", "gpu": "1"}  # flow runs at a time; two trainings at once would starve each other
SERVE, FIRST_ENDPOINT = "serve-", 8100
READY_S, DEPLOY_S, STOP_S, POLL_S = 180.0, 300.0, 20.0, 0.2


class StartedProcess(Part):
    """A process as `up` left it; the start time (seconds since 1970) tells it from a later one with the same id."""

    name: str
    pid: int
    started: float

    def process(self) -> psutil.Process | None:
        """The living process, or None where it has ended, whoever has its id by now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 1.0 and processes.is_alive(process):
                return process
        return None


class Up(Part):
    """What is up, in the order of its start; kept in up.json under the state directory."""

    prefect_port: int
    mlflow_port: int
    processes: tuple[StartedProcess, ...] = ()
    endpoints: dict[str, int] = Field(default_factory=dict)  # the port at which each use case's champion answers

    @property
    def prefect_url(self) -> str:
        """Address of the Prefect UI."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI, and its tracking URI."""
        return f"http://127.0.0.1:{self.mlflow_port}"


def up() -> Up:
    """Start what is not up yet; a failure on the way ends what was started. BadInput for a port that is taken."""
    running = _running()
    if running and all(each.process() for each in running.processes if not each.name.startswith(SERVE)):
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
            processes.end(process, STOP_S)
    _record().unlink(missing_ok=True)


def _start_all(plan: Up) -> Up:
    environment = _environment(plan)
    _say("leastwise: starting the Prefect server and the MLflow server …")
    plan = _start(plan, "prefect", _prefect_server(plan), environment)
    plan = _start(plan, "mlflow", _mlflow_server(plan), environment)
    _wait(plan, "prefect", lambda: processes.is_up(f"{plan.prefect_url}/api/health"))
    for pool, limit in POOLS.items():  # a worker makes its pool where there is none, and leaves one that is there alone
        worker = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", f"{pool}-1"]
        plan = _start(plan, f"worker-{pool}", [*worker, "--limit", limit], environment)
    for pool in POOLS:
        _wait(plan, f"worker-{pool}", partial(_has_worker, plan, pool))
    _say("leastwise: deploying every flow of prefect.yaml …")
    _run("deploy", ["prefect", "--no-prompt", "deploy", "--all"], environment)
    _wait(plan, "mlflow", lambda: processes.is_up(f"{plan.mlflow_url}/health"))
    return _serve_champions(plan, environment)


def _serve_champions(plan: Up, environment: dict[str, str]) -> Up:
    """An endpoint for every use case that has a champion; none is waited for, since loading one may take a minute."""
    for name in champions_at(plan.mlflow_url):
        port = _free_from(FIRST_ENDPOINT + len(plan.endpoints))
        plan = _start(plan, f"{SERVE}{name}", ["flows.serve", name, f"port={port}"], environment)
        plan = plan.model_copy(update={"endpoints": {**plan.endpoints, name: port}})
        storage.write_bytes(_record(), plan.model_dump_json(indent=1).encode())
    return plan


def _free_from(port: int) -> int:
    try:
        return processes.free_port(port)
    except BadInput:
        return processes.free_port(None)


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
    child = processes.start([sys.executable, "-m", *command], _log(name), environment, own_session=True)
    started = StartedProcess(name=name, pid=child.pid, started=psutil.Process(child.pid).create_time())
    plan = plan.model_copy(update={"processes": (*plan.processes, started)})
    storage.write_bytes(_record(), plan.model_dump_json(indent=1).encode())
    return plan


def _run(name: str, command: list[str], environment: dict[str, str]) -> None:
    child = processes.start([sys.executable, "-m", *command], _log(name), environment)
    try:
        status = child.wait(DEPLOY_S)
    except subprocess.TimeoutExpired:
        raise StartError(f"{name} took over {DEPLOY_S:.0f} s; {processes.tail(_log(name))}") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if status:
        raise StartError(f"{name} ended with status {status}; {processes.tail(_log(name))}")


def _wait(plan: Up, name: str, is_ready: Callable[[], bool]) -> None:
    """Until it is ready; StartError where the process of that name ends first or takes longer than READY_S."""
    awaited = next(each for each in plan.processes if each.name == name)

    def how_it_ended() -> str | None:
        return None if awaited.process() else "ended before it was ready"

    processes.wait_until_ready(name, is_ready, how_it_ended, _log(name), READY_S, POLL_S)


def _port(variable: str, default: int) -> int:
    port = os.environ.get(variable) or str(default)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInput(f"{variable}: {port!r} is no port; set it to a number from 1 to 65535")
    return processes.free_port(int(port), f"free it, or set {variable} to another")


def _has_worker(plan: Up, pool: str) -> bool:
    try:
        with processes.opened(f"{plan.prefect_url}/api/work_pools/{pool}") as answer:
            return bool(json.load(answer)["status"] == "READY")
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, TimeoutError):
        return False


def _running() -> Up | None:
    return Up.model_validate_json(_record().read_bytes()) if _record().exists() else None


def _record() -> Path:
    return storage.home() / "up.json"


def _log(name: str) -> Path:
    folder = storage.home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _how_to(running: Up) -> str:
    return (
        f"\n  Prefect  {running.prefect_url}\n  MLflow   {running.mlflow_url}\n\n"
        f"Start a climb: {running.prefect_url}/deployments → customize → Run, or\n"
        f"  PREFECT_API_URL={running.prefect_url}/api .venv/bin/prefect deployment run customize/customize "
        "-p use_case=alert-triage\n"
        f"{_endpoints(running)}"
        f"Logs are in {storage.home() / 'logs'}; `make down` ends everything."
    )


def _endpoints(running: Up) -> str:
    served = [f"  {name}  http://127.0.0.1:{port}/v1 (/health says when)\n" for name, port in running.endpoints.items()]
    return "".join(["Champions are being served:\n", *served]) if served else ""


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
