"""Serves models on loopback HTTP for as long as a `with` block lasts: causal models by llama.cpp, students by MLflow.

It does not expose anything beyond 127.0.0.1, does not ask a causal model anything (see `leastwise.endpoints.inference`), and does not
start vLLM: `vllm_command` writes the command for a GPU machine, which has not been run on a GPU here.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leastwise.endpoints.endpoint import Endpoint
from leastwise.engines.llama_server import API_KEY_VARIABLE, PARENT_POLL_S
from leastwise.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
CAUSAL_START_S = 120.0
STUDENT_START_S = 180.0
STOP_S = 5.0
LOG_TAIL_CHARACTERS = 2_000


@dataclass(frozen=True)
class StudentReply:
    """Predictions in the order of the texts, and the wall time of the one HTTP request that brought them."""

    predictions: tuple[Any, ...]
    latency_ms: float


@contextmanager
def serve_causal(
    gguf: Path,
    *,
    name: str,
    log: Path,
    adapter: Path | None = None,
    parallel: int = 1,
    context_tokens: int = 2048,
    threads: int = 2,
    port: int | None = None,
) -> Iterator[Endpoint]:
    """Serve a GGUF model (and a GGUF LoRA adapter) with llama.cpp in a child process, on CPU.

    `context_tokens` is for each of the `parallel` slots; each slot keeps its own prefix cache, so 1 slot serves shared
    prefixes best. OpenAI's API is under `base_url`, Anthropic's at the same host. Raises BadInput for a missing file or
    an occupied `port`, RuntimeError with the end of the log if the server dies or is not ready in two minutes.
    """
    _require_files(gguf, adapter)
    port, api_key = _usable_port(port), secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "leastwise.engines.llama_server", "--gguf", str(gguf.resolve()), "--name", name]
    command += ["--port", str(port), "--parallel", str(parallel), "--context-tokens", str(context_tokens)]
    command += ["--threads", str(threads), "--parent-pid", str(os.getpid())]
    command += ["--adapter", str(adapter.resolve())] if adapter else []
    environment = {API_KEY_VARIABLE: api_key, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with _running(command, environment, log) as process:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log, CAUSAL_START_S)
        yield Endpoint(f"http://127.0.0.1:{port}/v1", name, api_key, process.pid)


@contextmanager
def serve_student(
    model_uri_or_dir: str, *, log: Path, port: int | None = None, threads: int = 2, tracking_uri: str | None = None
) -> Iterator[Endpoint]:
    """Serve a logged or saved MLflow pyfunc model with MLflow's own model server, one worker, in this environment.

    `base_url` is the server's root, `/invocations` its one route; it has no key (MLflow offers none) and listens on
    loopback only. `tracking_uri` resolves `runs:/` and `models:/`; default is MLFLOW_TRACKING_URI.
    """
    port = _usable_port(port)
    command = [sys.executable, "-m", "leastwise.engines.serving", sys.executable, "-m", "mlflow", "models", "serve"]
    command += ["--model-uri", model_uri_or_dir, "--env-manager", "local", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}
    environment = {**quiet, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # MLflow starts `uvicorn` by name, which is beside this interpreter even when no environment is activated.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment |= {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    with _running(command, environment, log) as process:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log, STUDENT_START_S)
        yield Endpoint(f"http://127.0.0.1:{port}", model_uri_or_dir, pid=process.pid)


def ask_student(
    endpoint: Endpoint, texts: Sequence[str], *, column: str | None = None, timeout_s: float = 60.0
) -> StudentReply:
    """One `/invocations` request for all `texts`: as a plain list, or as a table with one `column`.

    Raises RuntimeError with the server's message if it refuses, urllib.error.URLError if it cannot be reached.
    """
    table = {"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}}
    body = json.dumps({"inputs": list(texts)} if column is None else table).encode()
    request = urllib.request.Request(  # noqa: S310 (our own loopback address)
        f"{endpoint.base_url}/invocations", body, {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            predictions = json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:LOG_TAIL_CHARACTERS]
        raise RuntimeError(f"the student at {endpoint.base_url} answered {error.code}: {reason}") from error
    return StudentReply(tuple(predictions), (time.perf_counter() - started) * 1000)


def vllm_command(
    model: str, *, name: str, port: int, context_tokens: int = 8192, adapter: str | None = None
) -> list[str]:
    """The command that serves the same model with vLLM on a GPU machine where vLLM is installed.

    Written from vLLM's documentation; not run on a GPU here. The key is read from VLLM_API_KEY, never from argv.
    """
    command = ["vllm", "serve", model, "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(context_tokens), "--enable-prefix-caching"]
    return command + (["--enable-lora", "--lora-modules", f"{name}-adapter={adapter}"] if adapter else [])


def _require_files(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.is_file():
            raise BadInput(f"{path}: no such model file; give the path of a GGUF file")


def _usable_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise BadInput(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); free it or name another"
            ) from error
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not _answers(url):
        if process.poll() is not None:
            raise RuntimeError(f"the model server ended with status {process.returncode}; end of {log}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the model server was not ready in {timeout_s:.0f} s; end of {log}:\n{_tail(log)}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 (our own loopback address)
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]


def _guard(command: list[str]) -> int:
    """Run a command that does not watch its parent itself: end its process group when asked to or when ours is gone."""
    parent = os.getppid()
    child = subprocess.Popen(command, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while child.poll() is None and os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        return child.returncode or 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
