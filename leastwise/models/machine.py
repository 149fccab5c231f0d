"""What this machine computes with: CPU threads (set for a block, then put back), number format, attention.

It pins nothing to a core and measures nothing (see `leastwise.models.hardware`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

THREADS = 2  # of whatever computes in a flow's process or in a server beside it


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's CPU threads, which are the process's.

    Waiting is passive: otherwise two busy processes stall each other.
    """
    import torch

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_here() -> torch.device:
    """Where this process computes with weights: its GPU where there is one (of several that of its rank), else the
    CPU. The one place that decides it.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def native_dtype() -> torch.dtype:
    """bf16 where the hardware multiplies in it, else fp32: emulated bf16 is slower than fp32."""
    import torch

    if device_here().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text(encoding="utf-8").split()) if flags.exists() else set()
    return torch.bfloat16 if words & {"avx512_bf16", "amx_bf16"} else torch.float32


def training_attention() -> str:
    """The attention to train with: on a CPU the backward pass of `sdpa` is slow."""
    import torch

    return "sdpa" if torch.cuda.is_available() else "eager"
