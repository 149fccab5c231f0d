"""Writes a model directory or a PEFT adapter as GGUF, by the vendored scripts of llama.cpp in a process of their own.

Whether the file computes what transformers does is not known then: see `comparison.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from leastwise.engines.gguf.architectures import pre_tokenizer_of, read_json
from leastwise.engines.gguf.vendored import PRE_TOKENIZER_VARIABLE
from leastwise.errors import BadInput
from leastwise.stores.shipped import ROOT

Quantization = Literal["f32", "f16", "q8_0"]
TAIL_CHARACTERS = 600
_NOT_WRITTEN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication")


def convert_model(model_dir: Path, outs: Mapping[Quantization, Path]) -> None:
    """Writes a directory of safetensors with its tokenizer and chat template as a GGUF file in each number format.

    BadInput with the end of what the script said where it refuses the model.
    """
    with ExitStack() as stack:
        runs = [
            ["convert_hf_to_gguf.py", str(model_dir.resolve()), "--outfile", str(part), "--outtype", dtype]
            for dtype, part in ((dtype, stack.enter_context(_written(out))) for dtype, out in outs.items())
        ]
        _run(runs, model_dir)


def convert_adapter(adapter_dir: Path, base_dir: Path, out: Path) -> Path:
    """Writes a PEFT LoRA adapter on the model in `base_dir` as a GGUF adapter in float32.

    BadInput for DoRA, rank-stabilised scaling, ranks by module or fully trained modules: they would be left out.
    """
    lora = read_json(adapter_dir / "adapter_config.json")
    if odd := [key for key in _NOT_WRITTEN if lora.get(key)]:
        raise BadInput(
            f"{adapter_dir}/adapter_config.json: {', '.join(odd)} cannot be written as GGUF; merge it instead"
        )
    with _written(out) as part:
        arguments = ["--base", str(base_dir.resolve()), "--outfile", str(part), "--outtype", "f32"]
        arguments.append(str(adapter_dir.resolve()))
        _run([["convert_lora_to_gguf.py", *arguments]], base_dir)
    return out


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.resolve().with_name(f".{out.stem}.{uuid.uuid4().hex}.gguf")  # two containers may have one process id
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _run(runs: Sequence[Sequence[str]], model_dir: Path) -> None:
    """Scripts with their arguments, one after the other in one process; BadInput with the last it said where one
    fails.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment[PRE_TOKENIZER_VARIABLE] = pre_tokenizer_of(model_dir) or ""
    command = [sys.executable, "-m", "leastwise.engines.gguf.vendored", json.dumps([list(run) for run in runs])]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = " ".join(done.stderr[-TAIL_CHARACTERS:].split())
        raise BadInput(
            f"{model_dir}: llama.cpp's conversion cannot write this model as GGUF, so it cannot be served here "
            f"({said}); name another model, or set last_stage before it is trained"
        )
