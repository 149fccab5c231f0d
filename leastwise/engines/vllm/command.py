"""How vLLM is called and in what environment: what is measured of its habits is said once, here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from leastwise.engines.engine import ToServe
from leastwise.engines.leftovers import MARK
from leastwise.engines.vllm.servable import check_adapter
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.redaction import holds_credentials, is_secret_name

SHUTDOWN_S = 20  # without it SIGTERM cuts off what is in flight
KEY_VARIABLE = "VLLM_API_KEY"
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_PLUGINS": "",  # some fetch adapters by the name of a request
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",  # anybody who reaches it could register any path
    "VLLM_SERVER_DEV_MODE": "0",
}
# Else a model that likes line breaks fills what an answer may take with them, and its JSON is cut off.
_HELD = {"backend": "guidance", "disable_any_whitespace": True}
_OURS = ("PYTHON", "VIRTUAL_ENV", "LEASTWISE_", "PREFECT_", "MLFLOW_", "AWS_", "KUBERNETES_")


def command_of(settings: VllmSettings, what: ToServe, socket: Path) -> list[str]:
    """The command line; BadInput for an adapter that it would not serve as it was trained."""
    command = [str(settings.executable), "serve", str(Path(what.model).resolve()), "--uds", str(socket)]
    command += ["--served-model-name", what.name, "--dtype", settings.dtype, "--load-format", "safetensors"]
    command += ["--max-model-len", str(what.context_tokens), "--seed", "0", "--shutdown-timeout", str(SHUTDOWN_S)]
    # Else a model's own file sets what is not asked for: a repetition penalty changes greedy answers too.
    command += ["--generation-config", "vllm", "--enable-prompt-tokens-details"]
    command += ["--structured-outputs-config", json.dumps(_HELD)]
    command += ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
    if settings.device == "gpu":
        command += ["--gpu-memory-utilization", str(settings.memory_share)]
    return command + _adapters(what)


def _adapters(what: ToServe) -> list[str]:
    if not what.adapters:
        return []
    rank = max(check_adapter(path) for path in what.adapters.values())
    modules = [json.dumps({"name": name, "path": str(path.resolve())}) for name, path in what.adapters.items()]
    return ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(modules)), "--lora-modules", *modules]


def environment_of(
    settings: VllmSettings, threads: int, key: str, ours: Mapping[str, str], home: Path
) -> dict[str, str]:
    """All of its environment: ours without keys, addresses and what points to our Python; `home` for what it writes."""
    passed = {name: value for name, value in ours.items() if name == MARK or not _is_ours(name, value)}
    environment = {**passed, **_QUIET, KEY_VARIABLE: key, "VLLM_CACHE_ROOT": str(home), "VLLM_CONFIG_ROOT": str(home)}
    if settings.device == "cpu":
        environment |= {"VLLM_CPU_KVCACHE_SPACE": str(settings.cache_gb), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        environment |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    return environment


def _is_ours(name: str, value: str) -> bool:
    return name.startswith(_OURS) or is_secret_name(name) or ("://" in value and holds_credentials(value))
