"""A base model with what is to be trained of it, and what several processes trained, gathered into one.

Trained weights are held in fp32 and computed with in bf16 (autocast), where the hardware has that: bf16 alone has no
room for small updates. It trains nothing: `leastwise.training.training` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from leastwise.errors import BadInput
from leastwise.models.causal_model import loaded
from leastwise.models.machine import native_dtype
from leastwise.training.causal.layers import adapter_config, blocks_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from leastwise.models.causal_model import CausalModel
    from leastwise.training.causal.computing import Attention
    from leastwise.training.completion_trainer import CompletionTrainer
    from leastwise.training.settings import TrainingSettings

M = TypeVar("M", bound="torch.nn.Module")


def check_known(model_dir: Path, uri: str) -> None:
    """BadInput where transformers has no causal model of this type, told from its configuration alone."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = json.loads((model_dir / "config.json").read_bytes()).get("model_type", "none")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput(
            f"model {uri!r}: transformers {transformers.__version__} loads no causal model of type {kind}; name "
            "another model, or set last_stage before it is trained"
        )


def trainable_model(
    base: Path,
    settings: TrainingSettings,
    device: torch.device | None = None,
    attention: Attention = "eager",
    is_empty: bool = False,
) -> CausalModel | PeftModel:
    """The base in training mode, its upper blocks or their adapters in fp32; on the device there is unless given.

    `is_empty`: without weights, for a process that is sent its shards by another.
    """
    import torch
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.manual_seed(settings.seed)
    if is_empty:
        model = _empty(base, attention)
    else:
        model = loaded(base, attention=attention, device=device, quantize=settings.quantize)
    model.train()
    if settings.method == "full":
        blocks = blocks_of(model)
        upper = blocks.upper(settings.upper_blocks_share)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(blocks.holds(name, upper))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return _with_places(model) if is_empty else model
    config = adapter_config(model, settings.upper_blocks_share, settings.rank, settings.alpha)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer):
            # autocast casts the small weight, not the large input
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]  # torch calls it a module or tensor
    return _with_places(adapted) if is_empty else adapted


def _empty(base: Path, attention: Attention) -> CausalModel:
    """The base's modules with weights that have a shape and no memory; what is no weight (rotations) is computed."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: CausalModel = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base), dtype=native_dtype(), attn_implementation=attention
        )
    model.tie_weights()  # what is made without memory is made apart
    return model


def _with_places(model: M) -> M:
    """What is trained gets memory of its own: accelerate tells the optimizer's weights apart by where they lie."""
    import torch

    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                setattr(module, name, torch.nn.Parameter(torch.empty_like(parameter, device="cpu")))
    return model


def gathered(trainer: CompletionTrainer, base: Path, settings: TrainingSettings) -> CausalModel | PeftModel | None:
    """What was trained as one model.

    Where processes each hold a share (FSDP), what was trained is gathered, weight by weight, into a fresh model on the
    CPU, which only the first process has.
    """
    import torch

    if not trainer.is_fsdp_enabled:
        trained: CausalModel | PeftModel = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        return trained
    whole = _whole_weights(trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.is_main_process)
    if not trainer.accelerator.is_main_process:
        return None
    model = trainable_model(base, settings, torch.device("cpu"))
    left = model.load_state_dict(whole, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    return model


def _whole_weights(model: torch.nn.Module, is_kept: bool) -> dict[str, torch.Tensor]:
    """What is trained, each put together by all processes; all take part, those that keep nothing too."""
    from torch.distributed.tensor import DTensor

    whole: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensor = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if is_kept:
                whole[name.replace("_checkpoint_wrapped_module.", "")] = tensor.detach().cpu()
    return whole
