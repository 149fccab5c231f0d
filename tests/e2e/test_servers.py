"""`make up` and `make down` for real: both servers, both workers and all deployments, on free ports with a
state of their own.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
import yaml
from aiohttp import web

from leastwise.serving.deployed import entries
from tests.servers.web_server import chat_completion, served

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = {each["name"]: each for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
RUN_S, POLL_S = 300.0, 0.3


@dataclass(frozen=True)
class Servers:
    """What is up for the tests of this file."""

    environment: dict[str, str]
    home: Path
    prefect_url: str
    mlflow_url: str

    def call(self, path: str, body: object = None) -> Any:
        """An answer of the Prefect API, as its UI asks."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect_url}/api{path}", data, {"Content-Type": "application/json"})
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as refused:
                if refused.code != 503:  # its database is busy: the UI asks again too
                    raise
                time.sleep(POLL_S)
        raise AssertionError(f"{path}: 503 twenty times")

    def start(self, name: str, parameters: dict[str, object]) -> str:
        """The id of a run started the way the UI's run form starts one."""
        deployment = self.call(f"/deployments/name/{name}/{name}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return str(self.call(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def reached(self, run_id: str, *states: str) -> dict[str, Any]:
        """A run once it has ended or is in one of the states, or as it is after RUN_S."""
        deadline = time.monotonic() + RUN_S
        while True:
            run: dict[str, Any] = self.call(f"/flow_runs/{run_id}")
            if run["state"]["type"] in (*ENDED, *states) or time.monotonic() > deadline:
                return run
            time.sleep(POLL_S)

    def processes(self) -> list[psutil.Process]:
        """What was started, and what that started."""
        recorded = [
            psutil.Process(each["pid"]) for each in json.loads((self.home / "up.json").read_text())["processes"]
        ]
        return recorded + [child for each in recorded for child in each.children(recursive=True)]


def local(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.local", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def environment_of(home: Path, prefect_port: int, mlflow_port: int) -> dict[str, str]:
    foreign = ("PREFECT_", "MLFLOW_TRACKING")  # this very test process may have a temporary Prefect server
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    ports = {"PREFECT_PORT": str(prefect_port), "MLFLOW_PORT": str(mlflow_port)}
    return kept | ports | {"LEASTWISE_HOME": str(home)}


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = tmp_path_factory.mktemp("home")
    prefect_port, mlflow_port = free_ports(2)
    environment = environment_of(home, prefect_port, mlflow_port)
    up = local("up", environment)
    try:
        assert up.returncode == 0, up.stderr
        yield Servers(environment, home, f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}")
    finally:
        local("down", environment)


def test_every_flow_is_deployed_on_its_pool_under_its_own_name(servers: Servers) -> None:
    deployed = {each["name"]: each["work_pool_name"] for each in servers.call("/deployments/filter", {})}
    assert deployed == {name: each["work_pool"]["name"] for name, each in DEPLOYMENTS.items()}
    flows = {each["name"] for each in servers.call("/flows/filter", {})}
    assert flows == set(deployed)


def test_no_schedule_spends_anything_before_a_person_switches_it_on(servers: Servers) -> None:
    schedules = {
        each["name"]: [schedule["active"] for schedule in each["schedules"]]
        for each in servers.call("/deployments/filter", {})
        if each["schedules"]
    }
    assert schedules == {"drift": [False], "retrain": [False], "rebaseline": [False]}


def test_the_run_form_of_customize_explains_every_field(servers: Servers) -> None:
    form = servers.call("/deployments/name/customize/customize")["parameter_openapi_schema"]
    fields = form["properties"] | form["definitions"]["Overrides"]["properties"]
    unexplained = [name for name, field in fields.items() if not field.get("description") or "default" not in field]
    assert not unexplained
    assert {"use_case", "quality_bound", "budget_usd", "last_stage", "approve_self_host"} <= set(fields)


@pytest.mark.parametrize("overrides", [{"budget_usd": -1}, {"quality_bound": 90}, {"no_such_field": 1}])
def test_the_form_refuses_a_bad_override_before_a_run_exists(servers: Servers, overrides: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        servers.start("customize", {"use_case": "alert-triage", "overrides": overrides})
    assert refused.value.code == 409
    assert next(iter(overrides)) in refused.value.read().decode()


def test_a_use_case_is_prepared_from_the_form_on_a_worker_and_its_page_lies_on_the_tracking_server(
    servers: Servers,
) -> None:
    source, out = servers.home / "my tickets.csv", servers.home / "from-the-form.yaml"
    words = [f"{a}{b}" for a in ("lor", "ses", "tun", "pos", "den", "mir") for b in ("ak", "el", "io", "us", "ym")]
    rng = random.Random(0)
    rows = [(" ".join([*rng.choices(words, k=9), f"team{n % 2}word"]), f"team {n % 2}") for n in range(400)]
    pd.DataFrame([*rows, ("a lone row of words", "rare")], columns=["message", "queue"]).to_csv(source, index=False)
    given: dict[str, Any] = {"sources": [str(source)], "name": "from-the-form", "out": str(out)}
    run = servers.reached(servers.start("prepare", {**given, "wanted": {"margin": 0.2, "rare": "drop"}}))
    log = (servers.home / "logs" / "worker-cpu.log").read_text()
    assert run["state"]["type"] == "COMPLETED" and run["work_pool_name"] == "cpu", log[-3000:]
    case = yaml.safe_load(out.read_text())
    assert case["task"]["labels"] == ["team 0", "team 1"] and case["requirements"]["quality"]["margin"] <= 0.2
    gate = pd.read_parquet(servers.home / "data" / "from-the-form" / "gate.parquet")
    client = mlflow.MlflowClient(servers.mlflow_url)
    (page,) = client.search_runs([client.get_experiment_by_name("from-the-form").experiment_id])
    assert page.data.metrics["rows.gate"] == len(gate) and page.data.metrics["rows.rare_drop"] == 1
    assert "prepare-from-the-form" in {each["key"] for each in servers.call("/artifacts/filter", {})}
    with pytest.raises(urllib.error.HTTPError) as refused:
        servers.start("prepare", {**given, "wanted": {"margin": 7}})
    assert refused.value.code == 409 and "margin" in refused.value.read().decode()


@pytest.fixture
def asking_case(servers: Servers, tiny: Path, tiny_gguf: Path) -> Iterator[Path]:
    """A use case that prompting fails and that asks for leave before it trains, on a model that says nothing of use
    and a base that knows nothing: what models do has tests of its own.
    """

    async def perhaps(_: web.Request) -> web.Response:
        return chat_completion("m", "perhaps", 20, 1)

    shutil.copytree(tiny_gguf, servers.home / "gguf", copy_function=os.link)
    rows = {
        "text": [f"a piece of {('iron', 'plum')[at % 2]} {at}" for at in range(1200)],
        "label": ["metal", "fruit"] * 600,
    }
    price = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
    case: dict[str, Any] = {
        "name": "asks-for-leave",
        "task": {"instruction": "Fruit or metal?", "labels": ["fruit", "metal"]},
        "data": {},
        "requirements": {"quality": {"bound": 0.9, "margin": 0.3}},
        "traffic": {"requests_per_month": 10_000, "output_tokens": 2},
        "training": {"max_examples": 48, "upper_blocks_share": 0.1, "usd_per_hour": 0.5},
        "last_stage": "fine_tune",
        "approvals": {"fine_tune": "ask"},
        "alpha": 0.2,
    }
    first = 0
    for table, size in {"train": 1000, "dev": 20, "gate": 100, "test": 20}.items():
        cut = pd.DataFrame(rows)[first : first + size]
        cut.assign(id=[f"r{at}" for at in cut.index]).to_parquet(servers.home / f"{table}.parquet")
        case["data"][table], first = f"{table}.parquet", first + size
    with served(web.post("/v1/chat/completions", perhaps)) as address:
        case["models"] = {
            "candidates": [{"uri": "openai:m", "base_url": f"{address}/v1", "price": price}],
            "base": {"uri": tiny.as_uri(), "venue": "managed", "price": price},
        }
        path = servers.home / "asks-for-leave.yaml"
        path.write_text(yaml.safe_dump(case))
        yield path


def test_a_climb_started_as_the_ui_does_pauses_for_leave_and_trains_on_the_gpu_pool_once_a_person_gives_it(
    servers: Servers, asking_case: Path
) -> None:
    run_id = servers.start("customize", {"use_case": str(asking_case)})
    asked = []
    while (run := servers.reached(run_id, "PAUSED"))["state"]["type"] == "PAUSED":
        asked.append(run["state"]["state_details"]["pause_key"])
        assert len(asked) == 1
        servers.call(f"/flow_runs/{run_id}/resume", {"run_input": {"answer": "granted", "who": "Ada", "why": "cheap"}})
    log = (servers.home / "logs" / "worker-cpu.log").read_text()
    assert run["state"]["type"] == "COMPLETED", log[-3000:]
    assert (asked, run["work_pool_name"]) == (["leave-fine-tune"], "cpu")

    pools = {
        each["work_pool_name"]
        for each in servers.call("/flow_runs/filter", {"sort": "START_TIME_DESC"})
        if each["parent_task_run_id"] and each["deployment_id"]
    }
    assert pools == {"gpu"}
    client = mlflow.MlflowClient(servers.mlflow_url)
    where = client.get_experiment_by_name("asks-for-leave")
    runs = client.search_runs([where.experiment_id])
    (ladder,) = [each for each in runs if each.data.tags["leastwise.kind"] == "ladder"]
    assert ladder.data.tags["leastwise.override.fine_tune"] == "granted by Ada: cheap"
    stages = {each.data.tags["leastwise.stage"] for each in runs if each.data.tags["leastwise.kind"] == "stage"}
    assert {"prompt", "fine_tune"} <= stages
    keys = {each["key"] for each in servers.call("/artifacts/filter", {})}
    assert {"gate-prompt", "gate-fine-tune", "ladder-asks-for-leave", "progress-prompt"} <= keys
    assert {"gate-verdicts-asks-for-leave", "costs-asks-for-leave"} <= keys
    judged = [each for each in runs if each.data.tags.get("leastwise.verdict") in ("PASS", "FAIL", "UNDECIDED")]
    assert all(each.data.tags["leastwise.traces"] != "0" for each in judged if "try" not in each.data.tags.values())
    assert "fine-tuning lora on 48 examples" in (servers.home / "logs" / "worker-gpu.log").read_text()


def test_mlflow_keeps_its_runs_where_the_demo_without_a_server_finds_them(servers: Servers) -> None:
    with urllib.request.urlopen(
        f"{servers.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=10
    ) as answer:
        default = json.load(answer)["experiment"]
    assert default["artifact_location"].startswith((servers.home / "mlartifacts").as_uri())
    assert (servers.home / "mlflow.db").exists()


def test_up_a_second_time_starts_nothing(servers: Servers) -> None:
    before = (servers.home / "up.json").read_text()
    again = local("up", servers.environment)
    assert (again.returncode, (servers.home / "up.json").read_text()) == (0, before)
    assert "already up" in again.stderr
    assert servers.prefect_url in again.stderr
    assert servers.mlflow_url in again.stderr


@pytest.mark.parametrize("variable", ["PREFECT_PORT", "MLFLOW_PORT"])
def test_an_occupied_port_is_named_with_the_variable_to_set_and_nothing_is_started(
    variable: str, tmp_path: Path
) -> None:
    free, _ = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = {"PREFECT_PORT": free, "MLFLOW_PORT": free} | {variable: taken}
        up = local("up", environment_of(tmp_path / "home", ports["PREFECT_PORT"], ports["MLFLOW_PORT"]))
    assert (up.returncode, up.stdout) == (2, "")
    assert up.stderr.count("\n") == 1
    assert str(taken) in up.stderr
    assert variable in up.stderr
    assert not (tmp_path / "home").exists()


def test_down_spares_a_process_that_merely_has_a_recorded_id(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        recorded = {"name": "prefect", "pid": bystander.pid, "started": time.time() - 3600}
        (tmp_path / "up.json").write_text(json.dumps({"prefect_port": 1, "mlflow_port": 2, "processes": [recorded]}))
        assert local("down", environment_of(tmp_path, 1, 2)).returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_down_ends_the_endpoints_that_climbs_left_and_spares_who_has_such_an_id_by_now(tmp_path: Path) -> None:
    marked, later = "of-this-test", subprocess.Popen(["sleep", "60"])
    left = subprocess.Popen(["sleep", "60"], env=os.environ | {entries.MARK: marked}, start_new_session=True)
    try:
        (tmp_path / entries.FOLDER).mkdir()
        fields = {"name": "toy", "run_id": "r", "host": "127.0.0.1", "port": 9}
        reused = {"name": "toy", "pid": later.pid, "started": time.time() - 3600}
        for version, more in {"1": {"mark": marked}, "2": {"mark": "gone", "process": reused}}.items():
            entry = entries.Entry.model_validate(fields | {"version": version} | more)
            (tmp_path / entries.FOLDER / f"toy-v{version}.json").write_text(entry.model_dump_json())
        assert local("down", environment_of(tmp_path, 1, 2)).returncode == 0
        assert left.wait(10) != 0 and later.poll() is None
        assert not list((tmp_path / entries.FOLDER).glob("*.json"))
    finally:
        for each in (left, later):
            each.kill()
            each.wait()


def test_down_ends_everything_up_started_and_frees_the_ports(servers: Servers) -> None:
    """Stands last: the other tests of this file need what it ends."""
    processes = servers.processes()
    assert len(processes) >= 4
    down = local("down", servers.environment)
    assert (down.returncode, [each for each in processes if is_alive(each)]) == (0, [])
    assert not (servers.home / "up.json").exists()
    for url in (servers.prefect_url, servers.mlflow_url):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=2)
