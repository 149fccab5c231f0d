"""How many weights a training changes: counted from a Llama's shape, so that it can be read on larger models too.

It loads no model. A LoRA of rank r on a linear layer of m inputs and n outputs trains r (m + n) weights (Hu et al.
2021, arXiv:2106.09685, section 4.1). The shapes are those of table 3 of "The Llama 3 Herd of Models"
(arXiv:2407.21783).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leastwise.part import Part


class Shape(Part):
    """The sizes of a Llama: what its weights are counted from."""

    blocks: int = Field(ge=1, description="Decoder blocks.")
    hidden: int = Field(ge=1, description="Width of a token's vector.")
    feed_forward: int = Field(ge=1, description="Width inside the gated feed-forward layer.")
    heads: int = Field(ge=1, description="Query heads.")
    key_value_heads: int = Field(ge=1, description="Key and value heads.")
    vocabulary: int = Field(ge=1, description="Tokens.")
    tied: bool = Field(False, description="Whether input and output embeddings are the same weights.")

    @property
    def linear_layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the seven linear layers of a block: q, k, v, o, gate, up, down."""
        wide, key_value = self.hidden, self.hidden // self.heads * self.key_value_heads
        attention = ((wide, wide), (wide, key_value), (wide, key_value), (wide, wide))
        return (*attention, (wide, self.feed_forward), (wide, self.feed_forward), (self.feed_forward, wide))

    @property
    def weights_a_block(self) -> int:
        """Weights of one block, its two norms included."""
        return sum(m * n for m, n in self.linear_layers) + 2 * self.hidden

    @property
    def weights(self) -> int:
        """All weights of the model."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.blocks * self.weights_a_block + embeddings + self.hidden


LLAMA_3_8B = Shape(blocks=32, hidden=4096, feed_forward=14336, heads=32, key_value_heads=8, vocabulary=128_256)
LLAMA_3_70B = Shape(blocks=80, hidden=8192, feed_forward=28672, heads=64, key_value_heads=8, vocabulary=128_256)


def upper_blocks(blocks: int, share: float) -> range:
    """The numbers of the blocks that are trained: the upper `share` of them, at least one."""
    return range(blocks - max(1, round(blocks * share)), blocks)


def trainable_share(shape: Shape, method: Literal["lora", "full"], rank: int, upper_blocks_share: float) -> float:
    """The share of all weights, the adapter's included, that a training of the upper blocks changes."""
    trained_blocks = len(upper_blocks(shape.blocks, upper_blocks_share))
    if method == "full":
        return trained_blocks * shape.weights_a_block / shape.weights
    adapter = trained_blocks * rank * sum(m + n for m, n in shape.linear_layers)
    return adapter / (shape.weights + adapter)
