"""A student's forward pass: in torch, for training and answering, and as an ONNX graph made from it in memory.

It reads and writes no student directory and does not choose between the two (`leastwise.models.student_runtime` does).
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from leastwise.models.machine import torch_threads

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Compute = Callable[[list[list[int]]], npt.NDArray[np.float32]]
"""Token rows, as many and as long as they are, to float32 logits of shape (rows, labels)."""

_OPSET = 17


@dataclass(frozen=True)
class Network:
    """A student in memory: its encoder, and the head that reads the mean over the encoder's tokens."""

    encoder: PreTrainedModel
    head: torch.nn.Linear


def padded(tokens: list[list[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids and mask (1 a token, 0 padding), each of shape (rows, longest row)."""
    lengths = np.array([len(row) for row in tokens])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate(tokens)
    return ids, mask.astype(np.int64)


def forward(network: Network, ids: torch.Tensor, mask: torch.Tensor, normalize: bool = False) -> torch.Tensor:
    """Float32 logits, shape (rows, labels), from tensors as `padded` makes them: encoder, mean over tokens, head."""
    import torch

    hidden: torch.Tensor = network.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = (hidden.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    logits: torch.Tensor = network.head(torch.nn.functional.normalize(pooled, dim=1) if normalize else pooled)
    return logits.float()


Precision = Literal["float32", "bfloat16", "int8"]


def in_torch(network: Network, normalize: bool, threads: int, precision: Precision) -> Compute:
    """Answering by torch; the encoder is changed to this precision, the head stays float32."""
    import torch

    if precision == "bfloat16":
        network.encoder.bfloat16()
    if precision == "int8":
        with warnings.catch_warnings():  # deprecated for torchao, which is not installed; as of torch 2.13 it works
            warnings.simplefilter("ignore")
            small = torch.ao.quantization.quantize_dynamic(network.encoder, {torch.nn.Linear}, torch.qint8)
        network = replace(network, encoder=small)

    def compute(tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        ids, mask = (torch.from_numpy(each) for each in padded(tokens))
        with torch_threads(threads), torch.inference_mode():
            logits: npt.NDArray[np.float32] = forward(network, ids, mask, normalize).numpy()
        return logits

    return compute


def in_onnx(network: Network, normalize: bool, threads: int, *, quantized: bool) -> Compute:
    """Answering by ONNX Runtime on the CPU; `quantized` holds the weights as int8 and computes dynamically."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported: from 1.32 it reports on Linux too
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # spinning answers a lone text faster, but keeps the cores from the server around it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = _graph(network, normalize)
    session = onnxruntime.InferenceSession(
        _in_int8(graph) if quantized else graph, options, providers=["CPUExecutionProvider"]
    )

    def compute(tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        ids, mask = padded(tokens)
        logits: npt.NDArray[np.float32] = session.run(["logits"], {"ids": ids, "mask": mask})[0]
        return logits

    return compute


def _graph(network: Network, normalize: bool) -> bytes:
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = network.encoder, network.head  # so that the exporter finds their weights

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return forward(network, ids, mask, normalize)

    made, example = io.BytesIO(), torch.ones(2, 5, dtype=torch.int64)
    # the exporter that traces: the newer one needs a package more and several times as long
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Whole().eval(),
            (example, example),
            made,  # type: ignore[arg-type]  # torch names only paths, and its tracing exporter writes to files
            dynamo=False,
            opset_version=_OPSET,
            input_names=["ids", "mask"],
            output_names=["logits"],
            dynamic_axes={"ids": [0, 1], "mask": [0, 1], "logits": [0]},
        )
    return made.getvalue()


def _in_int8(graph: bytes) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder, f"{name}.onnx") for name in ("plain", "ready", "small"))
        plain.write_bytes(graph)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_dynamic(ready, small, weight_type=QuantType.QInt8)
        return small.read_bytes()
