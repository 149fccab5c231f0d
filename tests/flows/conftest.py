"""One Prefect server for all flow tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def prefect_server(prefect_api: str) -> str:
    return prefect_api
