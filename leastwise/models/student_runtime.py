"""How a student's numbers are computed when it answers.

The weights on disk stay float32 safetensors; a runtime is how they are held in memory, an ONNX graph included: it is
made when the student is loaded. It measures and chooses none (`leastwise.models.runtime_choice` does).
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from leastwise.models.student_network import Compute, Network, in_onnx, in_torch

Runtime = Literal["float32", "bfloat16", "int8", "onnx", "onnx-int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


class RuntimeSpeed(BaseModel):
    """What one runtime did on the machine of the export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Runtime
    requests_per_s: float = Field(description="Texts a second, each alone, tokenized and answered in process.")
    requests_per_s_at_32: float = Field(description="Texts a second in batches of 32.")
    dev_accuracy: float = Field(description="Share of dev texts answered with their label, without declining.")


def compute_in(runtime: Runtime, network: Network, normalize: bool, threads: int) -> Compute:
    """How this runtime computes the network (in float32; it may be changed); see `Compute`."""
    if runtime == "onnx" or runtime == "onnx-int8":
        return in_onnx(network, normalize, threads, quantized=runtime == "onnx-int8")
    return in_torch(network, normalize, threads, runtime)
