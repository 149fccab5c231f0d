"""Whether processes that each hold a whole copy of a model have trained the same one.

Only the first process writes what it holds, so a copy that went its own way would be lost without a word, and the
steps with it. Weights in shards have no copy to compare. It changes no weight.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3  # of a tensor's largest weight: processors of two kinds round a step otherwise


def difference(model: torch.nn.Module) -> float:
    """Largest difference of a trained weight between all processes, as a share of its tensor's largest; 0.0: every bit
    is the same. All processes take part. RuntimeError, naming the tensor, where they trained apart.
    """
    from accelerate.utils import gather_object

    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    if len(set(gather_object([_digest(trained)]))) == 1:
        return 0.0
    found = {name: _spread(tensor) for name, tensor in trained.items()}
    worst = max(found, key=lambda name: (found[name] != found[name], found[name]))  # what is no number comes first
    if not found[worst] <= TOLERANCE:
        raise RuntimeError(
            f"the processes trained apart: {worst} differs by {found[worst]:.2g} of its largest weight between them; "
            "nothing is kept. See that all machines run the same Leastwise and torch, and train again"
        )
    return found[worst]


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _spread(tensor: torch.Tensor) -> float:
    from torch import distributed

    is_broken = (~tensor.isfinite()).any().float()  # least and most of what is no number depend on the order
    distributed.all_reduce(is_broken, distributed.ReduceOp.MAX)
    if is_broken:
        return float("nan")
    least, most = tensor.float().clone(), tensor.float().clone()
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    largest = float(most.abs().maximum(least.abs()).max())
    return float((most - least).max()) / largest if largest else 0.0
