"""What this machine computes with: its device, CPU threads (set for a block, then put back), formats, how much at once.

It pins nothing to a core and measures nothing (see `leastwise.models.hardware`).
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

T = TypeVar("T")

MOST_THREADS = 16  # of one computation: small models gain nothing by more, and others run beside it


def threads_of(cores: int, quota: str = "max") -> int:
    """Threads of one computation on so many cores; `quota` is a container's share as cpu.max writes it (`200000
    100000`: two cores).
    """
    allowed, _, period = quota.partition(" ")
    if allowed.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, int(allowed) // int(period)))
    return max(1, min(cores, MOST_THREADS))


def _threads_here() -> int:
    quota = Path("/sys/fs/cgroup/cpu.max")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return threads_of(cores, quota.read_text(encoding="ascii") if quota.exists() else "max")


THREADS = _threads_here()  # of whatever computes in a flow's process or in a server beside it


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


_FITS: dict[str, int] = {}  # what did not fit once is not tried again by this process


def fitting(what: str, at_once: int, compute: Callable[[int], T]) -> T:
    """`compute(n)` with n at most `at_once`, halved where a GPU's memory does not suffice, and kept so for `what`.

    What is computed of fewer must be the same, or a part that its caller goes on from. Raises torch's own error where
    not even one fits.
    """
    import torch

    while True:
        size = min(at_once, _FITS.get(what, at_once))
        try:
            return compute(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        _FITS[what] = size // 2  # not in the handler, where the error still holds what did not fit
        gc.collect()  # a trainer is held by circles
        torch.cuda.empty_cache()


def check_quantize(quantize: Literal["nf4"] | None) -> None:
    """Raises BadInput where 4 bits are asked for and the library that computes with them is not there."""
    if quantize and find_spec("bitsandbytes") is None:
        raise BadInput(
            "training.quantize: nf4 needs bitsandbytes, which is not installed on this machine; pip install "
            "'leastwise[quantize]', or leave training.quantize empty"
        )


def in_4_bits() -> BitsAndBytesConfig:
    """How a base is held in 4 bits: nf4 with double quantization, computed with in this machine's format (QLoRA,
    Dettmers et al. 2023, arXiv:2305.14314, section 3).
    """
    from transformers import BitsAndBytesConfig

    check_quantize("nf4")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=native_dtype(),
    )
