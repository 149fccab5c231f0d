"""peft's LoRA linear layer as one operation while it trains: the same numbers with a third fewer passes over memory.

peft adds `B(A(x)) * scaling` to the frozen layer's output as operations of their own, and autograd then reads and
writes whole activations for each. Here the update is accumulated into the matrix product, forward and backward. It is
offered to peft through its custom modules, and does nothing outside training; weights, names and files stay peft's.
Imports torch and peft when loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear


class _FusedLora(torch.autograd.Function):
    """`x W' + scaling · (x A') B'`, of which A and B are trained; W has no bias."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        dtype = weight.dtype
        rows, small_a, small_b = x.reshape(-1, x.shape[-1]).to(dtype), a.to(dtype), b.to(dtype)
        inner = rows @ small_a.t()
        out = (rows @ weight.t()).addmm_(inner, small_b.t(), alpha=scaling)
        ctx.save_for_backward(rows, weight, small_a, small_b, inner)
        ctx.scaling, ctx.shape, ctx.dtypes = scaling, x.shape, (x.dtype, a.dtype, b.dtype)
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor, torch.Tensor, None]:
        rows, weight, a, b, inner = ctx.saved_tensors
        dtypes = ctx.dtypes
        grad = grads[0].reshape(-1, weight.shape[0]).to(weight.dtype)
        through = grad @ b
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(through, a, alpha=ctx.scaling).view(ctx.shape).to(dtypes[0])
        grad_a = (through.t() @ rows).to(dtypes[1]).mul_(ctx.scaling)
        grad_b = (grad.t() @ inner).to(dtypes[2]).mul_(ctx.scaling)
        return grad_x, None, grad_a, grad_b, None


class FusedLoraLinear(Linear):
    """peft's LoRA layer over `torch.nn.Linear`; anything but plain training of one adapter is left to peft."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base = self.get_base_layer()
        name = self.active_adapters[0]
        is_plain = (
            self.training
            and torch.is_grad_enabled()
            and not (args or kwargs or self.merged or self.disable_adapters or self.lora_variant)
            and len(self.active_adapters) == 1
            and base.bias is None
            and isinstance(self.lora_dropout[name], torch.nn.Identity)
        )
        if not is_plain:
            return super().forward(x, *args, **kwargs)
        a, b, scaling = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        out: torch.Tensor = _FusedLora.apply(x, base.weight, a, b, scaling)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return out
