"""What is made at a Prefect server and beside it, before the first flow run: pools, MLflow's accounts."""

import configparser
from collections.abc import Iterator

import pytest

from infra import deployments, healthy, local, tracking
from leastwise.errors import BadInput
from tests.servers.web_server import served


@pytest.fixture
def prefect(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from prefect.client.orchestration import get_client

    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    yield
    with get_client(sync_client=True) as client:
        for pool in local.POOLS:
            client.delete_work_pool(pool)


def test_pools_of_a_cluster_get_their_template_each_time_and_keep_the_limit_somebody_set(
    prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    assert deployments.make_pools("kubernetes") == list(local.POOLS)
    with get_client(sync_client=True) as client:
        client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=3))
        monkeypatch.setenv("GPU_IMAGE", "ours:7")
        assert deployments.make_pools("kubernetes") == []
        pool = client.read_work_pool("gpu")
    assert (pool.type, pool.concurrency_limit) == ("kubernetes", 3)
    job = pool.base_job_template["job_configuration"]["job_manifest"]
    assert job == (deployments.template("kubernetes", "gpu") or {})["job_configuration"]["job_manifest"]
    assert pool.base_job_template["variables"]["properties"]["image"]["default"] == "ours:7"
    with pytest.raises(BadInput, match="pool cpu is of type kubernetes, not process"):
        deployments.make_pools("process")


def test_one_machine_more_takes_one_run_more_since_the_limit_is_the_workers(prefect: None) -> None:
    from prefect.client.orchestration import get_client

    assert deployments.make_pools("process") == list(local.POOLS)
    with get_client(sync_client=True) as client:
        assert [client.read_work_pool(pool).concurrency_limit for pool in local.POOLS] == [None, None]


def test_who_has_no_account_may_do_nothing_and_a_password_with_any_sign_is_written_as_it_is() -> None:
    read = configparser.ConfigParser(interpolation=None)
    read.read_string(tracking.accounts("postgresql+psycopg://leastwise:a%25b@postgres/mlflow_auth"))
    assert read["mlflow"]["database_uri"] == "postgresql+psycopg://leastwise:a%25b@postgres/mlflow_auth"
    assert read["mlflow"]["default_permission"] == "NO_PERMISSIONS"


def test_a_container_is_well_only_where_it_answers_200() -> None:
    with served() as address:
        assert not healthy.is_healthy(f"{address}/nothing")
    assert not healthy.is_healthy(address)
