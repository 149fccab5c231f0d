"""vLLM on loopback behind the gateway: a folder of safetensors, and PEFT adapters on it, each by its name.

It asks the model nothing. Not run on a GPU: measured with the CPU build, which takes the same command line.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.engine import Capabilities, Running, ToServe
from leastwise.engines.server_process import Counts, ServerProcess
from leastwise.engines.vllm.command import KEY_VARIABLE, command_of
from leastwise.engines.vllm.gateway import GATEWAY_KEY_VARIABLE
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.errors import BadInput

STOP_S = 20.0  # more than the gateway gives vLLM
CAPABILITIES = Capabilities(json_schema=True, logprobs=True, cached_tokens=True, adapters=64)
COUNTS = Counts(
    waiting="vllm:num_requests_waiting",
    running="vllm:num_requests_running",
    input_tokens="vllm:prompt_tokens_total",
    output_tokens="vllm:generation_tokens_total",
)


@dataclass(frozen=True)
class Vllm:
    """The vLLM that a machine's settings name."""

    settings: VllmSettings
    name: str = "vLLM"
    capabilities: Capabilities = CAPABILITIES

    @property
    def computes_as(self) -> str:
        """Its hardware and number format."""
        return self.settings.computes_as

    @contextmanager
    def serving(self, what: ToServe) -> Iterator[Running]:
        """The model alone and every adapter, at once. Two keys: one of ours at the gateway, one between that and vLLM,
        neither on a command line.
        """
        if not (Path(what.model) / "config.json").is_file():
            raise BadInput(f"{what.model}: is no folder of a model (config.json); give one with safetensors")
        port, key = processes.free_port(what.port), secrets.token_urlsafe(24)
        environment = {GATEWAY_KEY_VARIABLE: key, KEY_VARIABLE: secrets.token_urlsafe(24)}
        url = f"http://127.0.0.1:{port}"
        # Short, as the path of a socket must be, and for this user alone.
        with tempfile.TemporaryDirectory(prefix="leastwise-vllm-", ignore_cleanup_errors=True) as folder:
            command = self._command(what, port, Path(folder) / "engine.sock")
            with processes.serving(command, what.log, environment, url, self.settings.start_s, STOP_S) as child:
                names = (what.name, *what.adapters)
                endpoints = {name: Endpoint(f"{url}/v1", name, key, child.pid) for name in names}
                yield ServerProcess(child, url, endpoints, COUNTS, key, STOP_S)

    def _command(self, what: ToServe, port: int, socket: Path) -> list[str]:
        gateway = [sys.executable, "-m", "leastwise.engines.vllm.gateway", "--port", str(port), "--socket", str(socket)]
        gateway += ["--settings", self.settings.model_dump_json(), "--threads", str(what.threads)]
        return [*gateway, "--parent-pid", str(os.getpid()), "--", *command_of(self.settings, what, socket)]
