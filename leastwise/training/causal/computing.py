"""How this machine's hardware computes a training: attention, number format, optimizer, how much at once; and why.

None of it is part of what is trained: a step is the same step, in other pieces or by other kernels. On a CPU all stays
as the settings say. It measures nothing (a training that runs out of memory all the same is tried in smaller pieces).
Not run on a GPU: what is chosen there is tested, what it comes to is for `benchmarks/gpu_check.py` to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from leastwise.models.hardware import weights_in
from leastwise.models.machine import device_here
from leastwise.money.lora import upper_blocks
from leastwise.training.settings import TrainingSettings

Attention = Literal["eager", "sdpa", "flash_attention_2"]

USED_SHARE = 0.85  # of a GPU's memory: the rest is for its allocator, its libraries and what the estimate leaves out
BYTES_TRAINED = 16  # a trained weight: itself, its gradient and Adam's two moments, in fp32
BYTES_QUANTIZED = 0.53  # a weight of nf4 with its double quantized constants
WIDE_KEPT, FEED_FORWARD_KEPT = 16, 5  # vectors a block keeps of a token for its backward pass, in bf16, norms in fp32


@dataclass(frozen=True)
class Card:
    """A GPU as it is chosen for."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    has_flash_attention: bool = False


@dataclass(frozen=True)
class Sizes:
    """What a model's memory is estimated from."""

    weights: float
    blocks: int
    hidden: int
    feed_forward: int
    vocabulary: int

    def held_bytes(self, settings: TrainingSettings) -> float:
        """Weights, and what the optimizer keeps of those that are trained."""
        blocks = len(upper_blocks(self.blocks, settings.upper_blocks_share))
        adapter = blocks * settings.rank * (11 * self.hidden + 3 * self.feed_forward)
        embeddings = 2 * self.vocabulary * self.hidden
        inside = max(0.0, self.weights - embeddings)
        if settings.method == "full":
            return 2 * self.weights + BYTES_TRAINED * inside * blocks / self.blocks
        each = BYTES_QUANTIZED if settings.quantize else 2
        return 2 * min(embeddings, self.weights) + each * inside + BYTES_TRAINED * adapter

    def bytes_at_once(self, settings: TrainingSettings, tokens: int, labelled: int, checkpointing: bool) -> float:
        """What a pass forward and back keeps of so many tokens, `labelled` of which go through the head."""
        blocks = len(upper_blocks(self.blocks, settings.upper_blocks_share))
        whole = 2 * (WIDE_KEPT * self.hidden + FEED_FORWARD_KEPT * self.feed_forward)
        kept = 2 * self.hidden * blocks + whole if checkpointing else whole * blocks
        return tokens * kept + labelled * self.vocabulary * 12  # logits in bf16, in fp32, and their gradient


@dataclass(frozen=True)
class Computing:
    """What was chosen, and why, a line a reason."""

    attention: Attention
    optimizer: Literal["adamw_torch", "adamw_torch_fused"]
    at_once: int
    gradient_checkpointing: bool
    packed: bool
    shards: bool
    reasons: tuple[str, ...]


def chosen(
    settings: TrainingSettings,
    card: Card | None,
    sizes: Sizes,
    longest: tuple[int, int],
    processes: int = 1,
    at_most: int | None = None,
) -> Computing:
    """What to compute with on `card` (None: the CPU); `longest` example and completion in tokens.

    `at_most`: examples at once that are known to fit. BadInput where a step cannot be shared by the processes.
    """
    shards = settings.launch.shard
    if card is None:
        why = "on the CPU: eager attention, whose backward pass is faster here than sdpa's"
        at_once = settings.at_once(processes, at_most)
        return Computing("eager", "adamw_torch", at_once, settings.gradient_checkpointing, False, bool(shards), (why,))
    if shards is None:
        shards = processes > 1 and settings.quantize is None
    flash = card.has_flash_attention and card.capability >= (8, 0)
    attention: Attention = "flash_attention_2" if flash else "sdpa"
    at_once, checkpointing, why = _fitting(settings, card, sizes, longest, processes, at_most, shards)
    reasons = (
        f"on {card.name}: {attention}" + (", rows packed without padding" if flash else " (flash-attn is not there)"),
        "fused AdamW",
        why,
    )
    return Computing(attention, "adamw_torch_fused", at_once, checkpointing, flash, shards, reasons)


def _fitting(
    settings: TrainingSettings,
    card: Card,
    sizes: Sizes,
    longest: tuple[int, int],
    processes: int,
    at_most: int | None,
    shards: bool,
) -> tuple[int, bool, str]:
    """Examples at once, whether activations are computed twice, and why: fewer at once before anything twice."""
    room = USED_SHARE * card.memory_bytes - sizes.held_bytes(settings) / (processes if shards else 1)
    for checkpointing in (True,) if settings.gradient_checkpointing else (False, True):
        most = settings.at_once(processes, at_most)
        while True:
            needed = sizes.bytes_at_once(settings, most * longest[0], most * longest[1], checkpointing)
            twice = ", activations computed twice" if checkpointing else ""
            if needed <= room:
                return most, checkpointing, f"{most} at once{twice}: {needed / 1e9:.1f} of {room / 1e9:.1f} GB left"
            if most == 1:
                break
            most = settings.at_once(processes, most // 2)
    return 1, True, f"1 at once, activations computed twice: {needed / 1e9:.1f} GB may not fit into {room / 1e9:.1f}"


def card_here() -> Card | None:
    """This process's GPU; None where it computes on the CPU."""
    import torch

    device = device_here()
    if device.type == "cpu":
        return None
    about = torch.cuda.get_device_properties(device)
    return Card(about.name, about.total_memory, (about.major, about.minor), find_spec("flash_attn") is not None)


def sizes_of(base: Path) -> Sizes:
    """Read off a model directory's configuration and the shapes of its weights."""
    written = json.loads((base / "config.json").read_text(encoding="utf-8"))
    about = written | written.get("text_config", {})

    def first(*names: str) -> int:
        return next((int(about[name]) for name in names if isinstance(about.get(name), int)), 0)

    hidden = first("hidden_size", "n_embd", "d_model")
    return Sizes(
        weights=weights_in(base),
        blocks=first("num_hidden_layers", "n_layer", "num_layers") or 1,
        hidden=hidden,
        feed_forward=first("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden,
        vocabulary=first("vocab_size"),
    )
