"""Serves a causal model with llama.cpp on loopback HTTP, on CPU, for as long as a `with` block lasts.

It asks the model nothing (see `leastwise.endpoints.inference`) and exposes nothing beyond 127.0.0.1.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.llama_server import API_KEY_VARIABLE
from leastwise.errors import BadInput

START_S, STOP_S = 120.0, 5.0


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
    an occupied `port`, StartError with the end of the log if the server dies or is not ready in two minutes.
    """
    _require_files(gguf, adapter)
    port, api_key = processes.free_port(port), secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "leastwise.engines.llama_server", "--gguf", str(gguf.resolve()), "--name", name]
    command += ["--port", str(port), "--parallel", str(parallel), "--context-tokens", str(context_tokens)]
    command += ["--threads", str(threads), "--parent-pid", str(os.getpid())]
    command += ["--adapter", str(adapter.resolve())] if adapter else []
    environment = {API_KEY_VARIABLE: api_key, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    url = f"http://127.0.0.1:{port}"
    with processes.serving(command, log, environment, url, START_S, STOP_S) as child:
        yield Endpoint(f"{url}/v1", name, api_key, child.pid)


def _require_files(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.is_file():
            raise BadInput(f"{path}: no such model file; give the path of a GGUF file")
