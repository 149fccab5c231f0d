"""Trackers, artifacts, Prefect, Redis and a provider's other address are held to residency as models are."""

from pathlib import Path
from typing import Any

import pytest

from leastwise.errors import problems_of
from tasks.session.destinations import destinations
from tests.unit.use_cases import QUALITY, use_case

VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "PREFECT_API_URL",
    "LEASTWISE_REDIS_URL",
    "OPENAI_BASE_URL",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path))


def refused(*hosts: str, **changes: Any) -> tuple[str, ...]:
    limits = QUALITY | {"residency": {"venues": ["api"], "hosts": ["api.openai.com", *hosts]}}
    return problems_of(destinations(use_case(requirements=limits, **changes)))


ELSEWHERE = {
    "MLFLOW_TRACKING_URI": ("postgresql://me:secret@db.example:5432/runs", "db.example"),
    "MLFLOW_REGISTRY_URI": ("https://registry.example/mlflow", "registry.example"),
    "PREFECT_API_URL": ("https://api.prefect.cloud/api/accounts/1", "api.prefect.cloud"),
    "LEASTWISE_STATE": ("postgresql://me:secret@Database.Example/leastwise", "database.example"),
    "LEASTWISE_REDIS_URL": ("rediss://:secret@Cache.Example:6380/0", "cache.example"),
    "OPENAI_BASE_URL": ("https://us.api.openai.com/v1", "us.api.openai.com"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_receives_texts_on_a_host_that_is_not_listed_is_refused_without_its_password(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, host = ELSEWHERE[name]
    monkeypatch.setenv(name, address)
    (problem,) = refused()
    assert name in problem and host in problem and "secret" not in problem
    assert refused(host.upper()) == ()


def test_this_machine_is_always_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert refused() == ()
    here = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "LEASTWISE_REDIS_URL": "redis://localhost:6379/0",
        "MLFLOW_REGISTRY_URI": (tmp_path / "registry").as_uri(),
        "OPENAI_BASE_URL": "http://[::1]:8000/v1",
    }
    for name, address in here.items():
        monkeypatch.setenv(name, address)
    assert refused() == ()


def test_a_tracker_whose_host_its_address_does_not_tell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    assert "databricks" in refused()[0]


def test_a_bucket_is_where_the_client_of_artifacts_would_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "s3://bucket/runs")
    assert "s3.amazonaws.com" in refused()[0]
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert refused("s3.eu-central-1.amazonaws.com") == ()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://minio.example:9000")
    assert "minio.example" in refused("s3.eu-central-1.amazonaws.com")[0]
    assert refused("minio.example") == ()


def test_tables_that_are_only_read_and_a_residency_without_hosts_refuse_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refused(data={"gate": "s3://bucket/gate.parquet"}) == ()
    monkeypatch.setenv("PREFECT_API_URL", "https://api.prefect.cloud/api")
    assert destinations(use_case(requirements=QUALITY | {"residency": {"venues": ["api"]}})) == []


@pytest.mark.parametrize("name", ["whole_models", "checkpoints", "launch.request"])
def test_what_a_training_puts_on_s3_for_other_machines_is_held_to_residency(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    inner = name.rpartition(".")[2]
    training = {inner: "s3://bucket/x"} if inner == name else {"launch": {inner: "s3://bucket/x"}}
    (problem,) = refused(training=training)
    assert f"training.{name}: " in problem and "s3.example" in problem
    assert refused("s3.example", training=training) == refused() == ()


def test_a_database_behind_a_socket_of_this_machine_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASTWISE_STATE", "postgresql:///leastwise?host=/run/postgresql")
    assert refused() == ()


def test_a_traffic_log_on_s3_is_held_to_residency_for_texts_are_written_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def problems(*hosts: str) -> tuple[str, ...]:
        limits = QUALITY | {"residency": {"venues": ["api"], "hosts": ["api.openai.com", *hosts]}}
        return problems_of(destinations(use_case(requirements=limits), "s3://bucket/traffic"))

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://objects.example")
    (problem,) = problems()
    assert problem.startswith("s3://bucket/traffic: texts would go to objects.example")
    assert problems("objects.example") == ()
