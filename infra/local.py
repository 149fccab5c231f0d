"""Everything on this machine: a Prefect server, an MLflow server, a worker a pool, every deployment of prefect.yaml,
an endpoint for every champion.

`python -m infra.local up` starts them and returns; `down` ends exactly what `up` started, what that started in turn,
and the endpoints that climbs left running. It listens on 127.0.0.1 only, sets up no accounts and restarts no server
that dies: infra/README.md says what to use then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

import flows  # noqa: F401 - keeps every process started here quiet and its state under the state directory
from leastwise.engines import processes
from leastwise.engines.processes import StartError
from leastwise.engines.started import StartedProcess
from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.serving.deployed import entries
from leastwise.stores import storage
from leastwise.stores.shipped import ROOT

POOLS = {"cpu": "10", "gpu": "1"}  # flow runs at a time; two trainings at once would starve each other
CHAMPIONS, LOOKED = "champions", "champions that are served"  # what looks after their endpoints; it says so
READY_S, DEPLOY_S, STOP_S, POLL_S = 180.0, 300.0, 20.0, 0.2


class Up(Part):
    """What is up, in the order of its start; kept in up.json under the state directory."""

    prefect_port: int
    mlflow_port: int
    processes: tuple[StartedProcess, ...] = ()

    @property
    def servers(self) -> list[StartedProcess]:
        """All but what looks after champions, which can be started again alone."""
        return [each for each in self.processes if each.name != CHAMPIONS]

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
    if running and all(each.process() for each in running.servers):
        running = _look_after_champions(running)
        _say(f"leastwise: already up; `make down` ends it\n{_how_to(running)}")
        return running
    _end_servers()
    plan = Up(prefect_port=_port("PREFECT_PORT", 4200), mlflow_port=_port("MLFLOW_PORT", 5000))
    if plan.prefect_port == plan.mlflow_port:
        raise BadInput(f"PREFECT_PORT and MLFLOW_PORT are both {plan.prefect_port}; set one of them to another port")
    storage.check_writable(storage.home())
    try:
        done = _start_all(plan)
    except BaseException:  # Ctrl-C too: half of it running would be in the way of the next try
        _end_servers()
        raise
    _say(_how_to(done))
    return done


def down() -> None:
    """End what `up` started, workers before the servers they report to, and every endpoint that was left running; wait
    until it is gone.
    """
    _end_servers(with_endpoints=True)


def _end_servers(with_endpoints: bool = False) -> None:
    running = _running()
    started = list(reversed(running.processes if running else ()))
    for each in (each for each in started if each.name == CHAMPIONS):
        _end_champions(each)  # first: or it would start again what is ended
    for entry in entries.every() if with_endpoints else ():
        entries.end(entry)
    for each in started:
        process = each.process()
        if process:
            processes.end(process, STOP_S)
    _record().unlink(missing_ok=True)


def _end_champions(started: StartedProcess) -> None:
    """End the process alone: the endpoints it started are ended in good order, or stay."""
    process = started.process()
    if process:
        process.kill()
        psutil.wait_procs([process], STOP_S)


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
    _run("deploy", ["infra.deployments"], environment)
    _wait(plan, "mlflow", lambda: processes.is_up(f"{plan.mlflow_url}/health"))
    return _look_after_champions(plan)


def _look_after_champions(plan: Up) -> Up:
    """An endpoint for every use case that has a champion, also for one that gets it later; none is waited for, since
    loading one may take a minute.
    """
    if any(each.process() for each in plan.processes if each.name == CHAMPIONS):
        return plan
    plan = plan.model_copy(update={"processes": tuple(plan.servers)})
    plan = _start(plan, CHAMPIONS, ["infra.champions"], _environment(plan))
    _wait(plan, CHAMPIONS, lambda: LOOKED in _log(CHAMPIONS).read_text(errors="replace"))
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
        f"{_endpoints()}"
        f"Logs are in {storage.home() / 'logs'}; `make down` ends everything."
    )


def _endpoints() -> str:
    served = [f"  {each.name}  {each.url}/v1 (/health says when)\n" for each in entries.living() if each.stays]
    later = "A champion that is promoted later is served within a minute; its address is in logs/champions.log.\n"
    return "".join(["Being served:\n", *served, later]) if served else later


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
