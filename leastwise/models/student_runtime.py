"""How a student's numbers are computed when it answers: chosen by measurement on this machine, quality held on dev.

The weights on disk stay float32 safetensors; a runtime is how they are held in memory, an ONNX graph included: it is
made when the student is loaded. It trains nothing and serves nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from leastwise.models.student_network import Compute, in_onnx, in_torch

if TYPE_CHECKING:
    from leastwise.models.student import Student

Runtime = Literal["float32", "bfloat16", "int8", "onnx", "onnx-int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
MOST_LOST = 0.003  # share of dev texts a runtime may get wrong beyond what float32 does, before it is no candidate
_BATCH = 32
_ROUNDS = 5


class RuntimeSpeed(BaseModel):
    """What one runtime did on the machine of the export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Runtime
    requests_per_s: float = Field(description="Texts a second, each alone, tokenized and answered in process.")
    requests_per_s_at_32: float = Field(description="Texts a second in batches of 32.")
    dev_accuracy: float = Field(description="Share of dev texts answered with their label, without declining.")


def compute_in(runtime: Runtime, network: Any, normalize: bool, threads: int) -> Compute:
    """How this runtime computes the network (`encoder`, `head`, float32, which may be changed); see `Compute`."""
    if runtime in ("onnx", "onnx-int8"):
        return in_onnx(network, normalize, threads, quantized=runtime == "onnx-int8")
    return in_torch(network, normalize, threads, runtime)


def fastest(measured: Sequence[RuntimeSpeed]) -> RuntimeSpeed:
    """The highest product of requests/s alone and in batches of 32, among those that hold quality.

    At most MOST_LOST more of dev may be wrong than by the first, which is float32.
    """
    held = [each for each in measured if each.dev_accuracy >= measured[0].dev_accuracy - MOST_LOST]
    return max(held, key=lambda each: each.requests_per_s * each.requests_per_s_at_32)


def _measured(student: Student, texts: list[str], labels: np.ndarray) -> list[RuntimeSpeed]:
    """The runtimes in turn, round after round, so that a drift of the machine's speed meets all of them; medians."""
    runs = {runtime: _answering(student, runtime) for runtime in RUNTIMES}
    sample = texts[: 2 * _BATCH]
    predicted = {runtime: answer(texts, _BATCH).argmax(axis=1) for runtime, answer in runs.items()}
    alone: dict[Runtime, list[float]] = {runtime: [] for runtime in runs}
    batched: dict[Runtime, list[float]] = {runtime: [] for runtime in runs}
    for _ in range(_ROUNDS):
        for runtime, answer in runs.items():
            alone[runtime].append(_rate(answer, sample[:_BATCH], 1))
            batched[runtime].append(_rate(answer, sample, _BATCH))
    known = np.asarray(student.about.labels)
    return [
        RuntimeSpeed(
            runtime=runtime,
            requests_per_s=statistics.median(alone[runtime]),
            requests_per_s_at_32=statistics.median(batched[runtime]),
            dev_accuracy=float(np.mean(known[predicted[runtime]] == labels)),
        )
        for runtime in runs
    ]


def _answering(student: Student, runtime: Runtime) -> Callable[[list[str], int], np.ndarray]:
    compute = compute_in(runtime, student.stored_network, student.about.normalize, student.threads)
    return lambda texts, size: student.logits(texts, size, compute)


def _rate(answer: Callable[[list[str], int], np.ndarray], texts: list[str], size: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(texts), size):
        answer(texts[start : start + size], size)
    return len(texts) / (time.perf_counter() - started)
