"""One Prefect server for all flow tests."""

import pytest

import flows  # noqa: F401 - makes Prefect quiet before it is imported


@pytest.fixture(scope="session", autouse=True)
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
