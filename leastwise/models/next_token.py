"""How likely every token of the vocabulary is to come next, as transformers computes it: what another engine that runs
the same weights is held to.

It starts no engine and compares nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.models.machine import native_dtype, torch_threads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

SPARE_SHARE = 0.6  # of the memory there is, which weights in float32 may take


def next_token_log_probabilities(
    model_dir: Path, adapter_dir: Path | None, prompts: Sequence[Sequence[int]], threads: int
) -> list[npt.NDArray[np.float32]]:
    """The natural logarithm of each token's probability after each prompt (token ids); as `log_probabilities_along`."""
    return [along[-1] for along in log_probabilities_along(model_dir, adapter_dir, prompts, threads, 1)]


def log_probabilities_along(
    model_dir: Path, adapter_dir: Path | None, prompts: Sequence[Sequence[int]], threads: int, last: int
) -> list[npt.NDArray[np.float32]]:
    """The natural logarithm of each token's probability after each of the `last` places of each prompt (token ids),
    shape (places, vocabulary), with the plainest attention: kernels made for speed differ more than engines do.

    In float32 where the weights fit into memory so; an adapter in the number format that it is trained and taught in.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with torch_threads(threads), torch.inference_mode():
        dtype = _exact_dtype(model_dir) if adapter_dir is None else native_dtype()
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, attn_implementation="eager").eval()
        if adapter_dir is not None:
            model = PeftModel.from_pretrained(model, str(adapter_dir)).eval()
        found: list[npt.NDArray[np.float32]] = []
        for prompt in prompts:
            logits = model(input_ids=torch.tensor([list(prompt)]), use_cache=False).logits[0, -last:].float()
            found.append(torch.log_softmax(logits, dim=-1).numpy())
    return found


def _exact_dtype(model_dir: Path) -> torch.dtype:
    import psutil
    import torch

    stored = sum(path.stat().st_size for path in model_dir.glob("*.safetensors"))
    return torch.float32 if 2 * stored < SPARE_SHARE * psutil.virtual_memory().available else native_dtype()
