"""How fast the training machine computes, and how large a model is: what the cost of a training is estimated from.

A GPU's speed is its data sheet's peak times the share that training usually reaches, where a use case names one. This
machine's is measured once, by matrix products, and kept: of its GPU under the card's name, where it has one (not run on
a GPU), else by the processor's time, for whatever else runs in that second says nothing of the hour a training takes.
It estimates no cost and trains nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path

from leastwise.models import machine, weights
from leastwise.models.encoder import embedder_dir
from leastwise.money.expected_cost import Hardware
from leastwise.stores import storage
from leastwise.stores.gguf_header import read_header
from leastwise.use_case import UseCase
from leastwise.use_case.price import Gpu

PEAK_FLOPS_PER_S: dict[Gpu, float] = {
    "A10G": 70e12,
    "L4": 121e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}  # dense bf16
GPU_SHARE = 0.4
SIZE, GPU_SIZE = 1536, 8192  # rows and columns of the matrices
# of a large matrix product's speed, reached by the embedded training: 0.08 on one machine, 0.31 on another
CPU_SHARE = {"bfloat16": 0.16, "float32": 0.6}


def of(use_case: UseCase, home: Path) -> Hardware:
    """The machines a use case trains on, at the price it states; several GPUs are taken to be that many times one."""
    training = use_case.training
    if training.gpu is not None:
        card, peak = str(training.gpu), PEAK_FLOPS_PER_S[training.gpu]
    elif machine.device_here().type == "cuda":
        card, peak = _this_gpu(home)
    else:
        return Hardware(flops_per_s=_this_machine(home), usd_per_hour=training.machines_usd_per_hour)
    count = training.launch.together
    return Hardware(
        flops_per_s=peak * GPU_SHARE * count,
        usd_per_hour=training.machines_usd_per_hour,
        name=card if count == 1 else f"{count} {card}",
    )


def parameters(uri: str | None) -> float:
    """How many weights a model has: counted where they are at hand, else read off its name; 0 where neither says."""
    if uri is None:
        return 0.0
    if uri.startswith("package://") and uri.count("gguf") == 0:
        try:
            return _in_gguf(weights.package_gguf(uri))
        except ValueError:
            return weights_in(embedder_dir(uri))
    if uri.startswith("file://"):
        return weights_in(Path(uri.removeprefix("file://")))
    size = re.search(r"(\d+(?:\.\d+)?)([bm])\b", uri.casefold())
    return float(size[1]) * {"b": 1e9, "m": 1e6}[size[2]] if size else 0.0


def encoder_parameters(uri: str | None, layers: int) -> float:
    """How many weights of an encoder compute when its first layers are kept; its embeddings are looked up, not computed
    with. All of them where no layer is numbered.
    """
    if uri is None or not uri.startswith(("package://", "file://")):
        return parameters(uri)
    directory = embedder_dir(uri) if uri.startswith("package://") else Path(uri.removeprefix("file://"))
    kept = [re.compile(rf"\blayers?\.{number}\.") for number in range(layers)]
    return weights_in(directory, lambda name: any(each.search(name) for each in kept)) or parameters(uri)


def _in_gguf(file: Path) -> float:
    return float(read_header(file).elements)


def weights_in(directory: Path, counts: Callable[[str], bool] = lambda _: True) -> float:
    """How many weights the safetensors of a directory hold, of those whose names count."""
    from safetensors import safe_open

    total = 0
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if counts(name)]  # noqa: SIM118 (no iterator)
            shapes = (tensors.get_slice(name).get_shape() for name in names)
            total += sum(map(prod, shapes))
    return float(total)


def _this_gpu(home: Path) -> tuple[str, float]:
    """The card's name, and its operations a second of large matrix products in bf16: measured once a card."""
    import torch

    card = torch.cuda.get_device_name(machine.device_here())
    note = home / f"matrix_products_{re.sub(r'[^a-z0-9]+', '_', card.casefold())}.json"
    if not note.exists():
        storage.write_bytes(note, json.dumps({"bfloat16": _measured_on_gpu()}).encode())
    return card, float(json.loads(note.read_text())["bfloat16"])


def _measured_on_gpu() -> float:
    import torch

    device = machine.device_here()
    pair = [torch.randn(GPU_SIZE, GPU_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2)]
    best = 0.0
    for _ in range(5):  # the first one also sets up kernels and memory
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        torch.matmul(*pair)
        torch.cuda.synchronize(device)
        best = max(best, 2 * GPU_SIZE**3 / (time.perf_counter() - started))
    return best


def _this_machine(home: Path) -> float:
    note = home / "matrix_products_cpu_time.json"
    if not note.exists():
        storage.write_bytes(note, json.dumps(_measured()).encode())
    speeds = json.loads(note.read_text())
    return max(share * float(speeds[name]) for name, share in CPU_SHARE.items())


def _measured() -> dict[str, float]:
    """Operations a second of large matrix products on this processor, by number format."""
    import torch

    speeds = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        pair = [torch.randn(SIZE, SIZE).to(dtype) for _ in range(2)]
        torch.matmul(*pair)  # the first one also sets up threads and memory
        speeds[name] = max(2 * SIZE**3 / _seconds_alone(partial(torch.matmul, *pair)) for _ in range(4))
    return speeds


def _seconds_alone(work: Callable[[], object]) -> float:
    """What a piece of work takes on all threads where nothing else runs: the processor's time, shared among them."""
    import torch

    started = time.process_time()
    work()
    return (time.process_time() - started) / torch.get_num_threads()
