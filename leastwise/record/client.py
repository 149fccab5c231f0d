"""MLflow's tracking server: where it is, and an experiment by name.

It says nothing of what a run holds (see `leastwise.record.run`).
"""

from __future__ import annotations

import os
import socket
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.redaction import without_user
from leastwise.stores import storage

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a database under the state directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.home() / 'mlflow.db'}"


def shown_uri() -> str:
    """The same as links and lines may show it."""
    return without_user(tracking_uri())


def connect() -> MlflowClient:
    """A client of the tracking server; BadInput where it cannot be reached."""
    uri = tracking_uri()
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme in ("http", "https"):
        _check_reachable(uri, parsed)
    elif parsed.scheme == "sqlite":
        storage.check_writable(Path(uri.removeprefix("sqlite:///")).parent)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def _check_reachable(uri: str, parsed: urllib.parse.ParseResult) -> None:
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    try:
        socket.create_connection((parsed.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise BadInput(
            f"MLFLOW_TRACKING_URI: the MLflow server {without_user(uri)} cannot be reached ({error}); start it with "
            "`make up`, or unset the variable to use a local database"
        ) from None


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the experiment, made where it does not exist."""
    existing = find_experiment(client, name)
    if existing:
        return existing
    location = None
    if tracking_uri().startswith("sqlite"):
        location = (storage.home() / "mlartifacts" / name).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except Exception:
        made_meanwhile = find_experiment(client, name)
        if made_meanwhile is None:
            raise
        return made_meanwhile


def find_experiment(client: MlflowClient, name: str) -> str | None:
    """Id of the experiment of that name, or None."""
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id) if experiment else None
