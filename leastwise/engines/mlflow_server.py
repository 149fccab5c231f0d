"""Serves a student with MLflow's own model server on loopback HTTP, for as long as a `with` block lasts.

It asks the student nothing (see `leastwise.endpoints.student`) and does not import MLflow, which runs in a process of
its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes

START_S, STOP_S = 180.0, 5.0


@contextmanager
def serve_student(
    model_uri_or_dir: str, *, log: Path, port: int | None = None, threads: int = 2, tracking_uri: str | None = None
) -> Iterator[Endpoint]:
    """Serve a logged or saved MLflow pyfunc model with MLflow's own model server, one worker, in this environment.

    `base_url` is the server's root, `/invocations` its one route; it has no key (MLflow offers none) and listens on
    loopback only. `tracking_uri` resolves `runs:/` and `models:/`; default is MLFLOW_TRACKING_URI.
    """
    port = processes.free_port(port)
    command = [
        sys.executable,
        "-m",
        "leastwise.engines.parent_guard",
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
    ]
    command += ["--model-uri", model_uri_or_dir, "--env-manager", "local", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}
    environment = {**quiet, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # MLflow starts `uvicorn` by name, which is beside this interpreter even when no environment is activated.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment |= {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    url = f"http://127.0.0.1:{port}"
    with processes.serving(command, log, environment, url, START_S, STOP_S) as child:
        yield Endpoint(url, model_uri_or_dir, pid=child.pid)
