"""Which layers of a causal model are trained: its blocks and their linear layers, found in the model, not listed.

It knows no architecture by name and changes no model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.money.lora import upper_blocks

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel

    from leastwise.models.causal_model import CausalModel


@dataclass(frozen=True)
class Blocks:
    """A model's decoder blocks: the name of the list that holds them (`model.layers`), and how many there are."""

    name: str
    count: int

    def upper(self, share: float) -> list[int]:
        """The numbers of the upper `share` of them, at least one."""
        return list(upper_blocks(self.count, share))

    def holds(self, parameter: str, numbers: list[int]) -> bool:
        """Whether a weight of this name is in one of these blocks."""
        return any(f"{self.name}.{number}." in parameter for number in numbers)


@dataclass(frozen=True)
class Layers:
    """The linear layers of the trained blocks, by full name; `transposed`: all keep their weights as (inputs, outputs).

    `plain`: every one is exactly torch's, neither quantized nor of another kind.
    """

    names: tuple[str, ...]
    blocks: Blocks
    numbers: tuple[int, ...]
    transposed: bool
    plain: bool


def blocks_of(model: CausalModel | PeftModel) -> Blocks:
    """The list of as many modules as the decoder says it has blocks, the outermost where there are several.

    Raises BadInput for a model without one.
    """
    import torch

    count = model.config.get_text_config(decoder=True).num_hidden_layers
    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    lists = [
        name
        for name, module in decoder.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise BadInput(
            f"models.base: {type(model).__name__} has no list of {count} blocks whose upper ones could be trained; "
            "name another base"
        )
    return Blocks(".".join(filter(None, (prefix, min(lists, key=lambda name: name.count("."))))), count)


def linear_layers(model: CausalModel, share: float) -> Layers:
    """All linear layers of the upper `share` of the blocks, whatever they are called. BadInput where there are none."""
    import torch
    from transformers.pytorch_utils import Conv1D

    blocks = blocks_of(model)
    numbers = blocks.upper(share)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and blocks.holds(f"{name}.", numbers)
    }
    kinds = {type(module) for module in found.values()}
    transposed = [issubclass(kind, Conv1D) for kind in kinds]
    if not found or any(transposed) != all(transposed):
        raise BadInput(
            f"models.base: the blocks of {type(model).__name__} have no linear layers of one kind that an adapter "
            "could be put on; set training.method: full, or name another base"
        )
    return Layers(tuple(found), blocks, tuple(numbers), all(transposed), kinds == {torch.nn.Linear})


def adapter_config(model: CausalModel, share: float, rank: int, alpha: float) -> LoraConfig:
    """peft's configuration of an adapter on `linear_layers`, computed by `FusedLoraLinear` where they are torch's own.

    Layers are named by their last names and the blocks' numbers, where that means no other layer (another tower's).
    """
    import torch
    from peft import LoraConfig

    from leastwise.training.fused_lora import FusedLoraLinear

    layers = linear_layers(model, share)
    last_names = {name.rpartition(".")[2] for name in layers.names}
    pattern = layers.blocks.name.rpartition(".")[2]
    is_short = _meant(model, last_names, pattern, layers.numbers) == set(layers.names)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft only divides it by the rank
        lora_dropout=0.0,
        target_modules=sorted(last_names) if is_short else list(layers.names),
        layers_to_transform=list(layers.numbers) if is_short else None,
        layers_pattern=pattern if is_short else None,
        fan_in_fan_out=layers.transposed,
        task_type="CAUSAL_LM",
    )
    if layers.plain:
        config._register_custom_module({torch.nn.Linear: FusedLoraLinear})
    return config


def _meant(model: torch.nn.Module, last_names: set[str], pattern: str, numbers: tuple[int, ...]) -> set[str]:
    """The modules that peft takes last names, pattern and numbers to mean."""
    number = re.compile(rf"(?:^|\.){re.escape(pattern)}\.(\d+)\.")
    named = (name for name, _ in model.named_modules() if name.rpartition(".")[2] in last_names)
    return {name for name in named if (at := number.search(name)) and int(at[1]) in numbers}
