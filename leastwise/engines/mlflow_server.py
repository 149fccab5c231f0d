"""MLflow's own model server on loopback HTTP, for a student (an encoder in ONNX) logged or saved as a pyfunc model.

It asks the student nothing (see `leastwise.endpoints.student`) and does not import MLflow, which runs in a process of
its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.engine import Capabilities, Running, ToServe
from leastwise.engines.server_process import ServerProcess
from leastwise.errors import BadInput
from leastwise.models.machine import THREADS

START_S, STOP_S = 180.0, 5.0
CAPABILITIES = Capabilities(json_schema=False, logprobs=False, cached_tokens=False)


@dataclass(frozen=True)
class MlflowServer:
    """MLflow's model server in this environment, one worker.

    `tracking_uri` resolves `runs:/` and `models:/`; default is MLFLOW_TRACKING_URI.
    """

    tracking_uri: str | None = None
    name: str = "MLflow's model server"
    computes_as: str = ""
    capabilities: Capabilities = CAPABILITIES

    @contextmanager
    def serving(self, what: ToServe) -> Iterator[Running]:
        """`base_url` is the server's root, `/invocations` its one route; it has no key (MLflow offers none) and listens
        on loopback only. BadInput for an occupied port, StartError as every engine.
        """
        if what.adapters:
            raise BadInput(f"{what.model}: {self.name} serves no adapters; merge them into the model first")
        port = processes.free_port(what.port)
        url, environment = f"http://127.0.0.1:{port}", _environment(what, self.tracking_uri)
        with processes.serving(_command(what.model, port), what.log, environment, url, START_S, STOP_S) as child:
            endpoint = Endpoint(url, what.model, pid=child.pid)
            yield ServerProcess(child, url, {what.name: endpoint}, stop_s=STOP_S)


@contextmanager
def serve_student(
    model_uri_or_dir: str,
    *,
    log: Path,
    port: int | None = None,
    threads: int = THREADS,
    tracking_uri: str | None = None,
) -> Iterator[Endpoint]:
    """`MlflowServer` for who only asks it."""
    what = ToServe(model_uri_or_dir, "student", log, threads=threads, port=port)
    with MlflowServer(tracking_uri).serving(what) as running:
        yield running.endpoint()


def _command(model: str, port: int) -> list[str]:
    guard = [sys.executable, "-m", "leastwise.engines.parent_guard", sys.executable, "-m"]
    where = ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    if Path(model).is_dir():  # what `mlflow models serve` starts in the end, less the seconds it takes to import itself
        return [*guard, "uvicorn", *where, "mlflow.pyfunc.scoring_server.app:app"]
    return [*guard, "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local", *where]


def _environment(what: ToServe, tracking_uri: str | None) -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}
    environment = {**quiet, "OMP_NUM_THREADS": str(what.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment["__pyfunc_model_path__"] = what.model  # by which MLflow's server application is told its model
    # MLflow starts `uvicorn` by name, which is beside this interpreter even when no environment is activated.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return environment | ({"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {})
