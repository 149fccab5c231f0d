"""What vLLM serves, by its own table of architectures and from the configuration files of a model or adapter alone.

It imports no vLLM and loads no weights.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from leastwise.engines.gguf.architectures import read_json
from leastwise.errors import BadInput

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that --max-lora-rank takes
_TABLE = "model_executor/models/registry.py"
_IN_TABLE = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS")
_ODD = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "trainable_token_indices")


def refusal_of(executable: Path, model_dir: Path, context_tokens: int) -> str | None:
    """Why this vLLM would not serve a model in a context of so many tokens; None where nothing is known against it.

    Where its table cannot be read (an image, a wrapper) no architecture is vouched for.
    """
    config = read_json(model_dir / "config.json")
    inner = config.get("text_config")
    named, table = config.get("architectures") or ["none"], architectures(executable)
    if table is None:
        return f"the table of architectures of {executable} cannot be read"
    if named[0] not in table:
        return f"vLLM's table names no {named[0]}"
    said = {**config, **inner} if isinstance(inner, dict) else config
    most = said.get("max_position_embeddings")
    scaled = said.get("rope_scaling") or said.get("rope_parameters") or {}
    is_scaled = isinstance(scaled, dict) and scaled.get("rope_type", scaled.get("type", "default")) != "default"
    if isinstance(most, int) and most < context_tokens and not is_scaled:
        return f"it takes {most:,} tokens, and context_tokens is {context_tokens:,}"
    return None


def check_adapter(adapter_dir: Path) -> int:
    """The rank to prepare for; BadInput for an adapter that vLLM would serve in part or not at all."""
    config = read_json(adapter_dir / "adapter_config.json")
    odd = [name for name in _ODD if config.get(name)]
    rank = config.get("r")
    if odd or config.get("bias", "none") != "none" or config.get("peft_type", "LORA") != "LORA":
        what = ", ".join(odd) or "its bias or type"
        raise BadInput(f"{adapter_dir}: {what} cannot be served by vLLM as an adapter; merge it, or train plain LoRA")
    if not isinstance(rank, int) or not 0 < rank <= RANKS[-1]:
        raise BadInput(f"{adapter_dir}: rank {rank!r}; vLLM serves adapters of rank 1 to {RANKS[-1]}; merge it")
    if not (adapter_dir / "adapter_model.safetensors").is_file():
        raise BadInput(f"{adapter_dir}: holds no adapter_model.safetensors; only safetensors are served")
    return next(each for each in RANKS if each >= rank)


@lru_cache(maxsize=8)
def architectures(executable: Path) -> frozenset[str] | None:
    """The architectures whose text this vLLM generates, from the file of its own that lists them; None where that is
    not found.
    """
    environment = executable.resolve().parent.parent
    found = sorted(environment.glob(f"lib*/python3*/site-packages/vllm/{_TABLE}"))
    if not found:
        return None
    tree = ast.parse(found[0].read_text(encoding="utf-8"))
    assigned = (node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None)
    tables = [node.value for node in assigned if _name(node) in _IN_TABLE and isinstance(node.value, ast.Dict)]
    keys = (key for table in tables for key in table.keys)
    return frozenset(key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)) or None


def version_of(executable: Path) -> str:
    """The vLLM of that environment by name and version; `vLLM` where it does not say."""
    environment = executable.resolve().parent.parent
    found = sorted(environment.glob("lib*/python3*/site-packages/vllm-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").replace("-", " ", 1) if found else "vLLM"


def _name(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
