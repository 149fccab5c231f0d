"""llama.cpp on loopback HTTP, on CPU: a GGUF model, and GGUF LoRA adapters on it.

It asks the model nothing (see `leastwise.endpoints.inference`) and exposes nothing beyond 127.0.0.1.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.engine import Capabilities, Running, ToServe
from leastwise.engines.llama_server import API_KEY_VARIABLE
from leastwise.engines.server_process import Counts, ServerProcess
from leastwise.errors import BadInput
from leastwise.models.machine import THREADS

START_S, STOP_S = 120.0, 5.0
CAPABILITIES = Capabilities(json_schema=True, logprobs=True, cached_tokens=True, adapters=16)
COUNTS = Counts(
    waiting="llamacpp:requests_deferred",
    running="llamacpp:requests_processing",
    input_tokens="llamacpp:prompt_tokens_total",
    output_tokens="llamacpp:tokens_predicted_total",
)


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp in a child process, on CPU.

    `parallel` slots share the context; each keeps its own prefix cache, so 1 slot serves shared prefixes best. One
    adapter is laid on the model for every request, and the model alone is not served then; of several each request
    says which.
    """

    parallel: int = 1
    name: str = "llama.cpp"
    computes_as: str = ""  # as answers were kept while it was the only one
    capabilities: Capabilities = CAPABILITIES

    @contextmanager
    def serving(self, what: ToServe) -> Iterator[Running]:
        """OpenAI's API is under `base_url`, Anthropic's at the same host. Raises BadInput for a missing file or an
        occupied port, StartError with the end of the log if the server dies or is not ready in two minutes.
        """
        _require_files(Path(what.model), *what.adapters.values())
        port, key = processes.free_port(what.port), secrets.token_urlsafe(24)
        threads = str(what.threads)
        environment = {API_KEY_VARIABLE: key, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        url = f"http://127.0.0.1:{port}"
        with processes.serving(
            _command(what, self.parallel, port), what.log, environment, url, START_S, STOP_S
        ) as child:
            endpoints = {name: Endpoint(f"{url}/v1", what.name, key, child.pid, body) for name, body in _asked(what)}
            yield ServerProcess(child, url, endpoints, COUNTS, key, STOP_S)


@contextmanager
def serve_causal(
    gguf: Path,
    *,
    name: str,
    log: Path,
    adapter: Path | None = None,
    parallel: int = 1,
    context_tokens: int = 2048,
    threads: int = THREADS,
    port: int | None = None,
) -> Iterator[Endpoint]:
    """`LlamaCpp` with a GGUF model and at most one adapter, for who only asks it."""
    adapters = {name: adapter} if adapter else {}
    what = ToServe(str(gguf), name, log, adapters, context_tokens, threads, port)
    with LlamaCpp(parallel).serving(what) as running:
        yield running.endpoint()


def _command(what: ToServe, parallel: int, port: int) -> list[str]:
    model = str(Path(what.model).resolve())
    command = [sys.executable, "-m", "leastwise.engines.llama_server", "--gguf", model, "--name", what.name]
    command += ["--port", str(port), "--parallel", str(parallel), "--context-tokens", str(what.context_tokens)]
    command += ["--threads", str(what.threads), "--parent-pid", str(os.getpid())]
    for path in what.adapters.values():
        command += ["--adapter", str(path.resolve())]
    return command


def _asked(what: ToServe) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    """What may be asked for, with the fields of the body that say so."""
    if len(what.adapters) < 2:
        yield next(iter(what.adapters), what.name), {}
        return
    for chosen, name in enumerate((what.name, *what.adapters), start=-1):
        yield name, {"lora": [{"id": at, "scale": float(at == chosen)} for at in range(len(what.adapters))]}


def _require_files(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path}: no such model file; give the path of a GGUF file")
