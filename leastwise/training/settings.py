"""How a causal model is trained. It trains nothing and chooses nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from leastwise.use_case.training import Launch


class TrainingSettings(BaseModel):
    """How to train; the defaults suit a 100M-parameter model on two cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lora", "full"] = Field("lora", description="lora trains adapters of 0.1-2% of the weights.")
    rank: int = Field(16, ge=1, le=512, description="Rank of the LoRA matrices.")
    alpha: float = Field(32.0, gt=0, description="LoRA scaling: the update is multiplied by alpha / rank.")
    learning_rate: float = Field(
        2e-3, gt=0, lt=1, description="Peak learning rate; 1e-3 to 2e-3 for LoRA, 1e-5 to 1e-4 for full."
    )
    warmup_share: float = Field(0.06, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    epochs: int = Field(1, ge=1, le=100, description="Passes over the examples.")
    max_examples: int = Field(2400, ge=1, description="Examples seen in all, every epoch counted; drawn at random.")
    batch_size: int = Field(16, ge=1, le=4096, description="Examples a step, over all processes.")
    examples_at_once: int = Field(
        8,
        ge=1,
        le=4096,
        description="Most examples a process computes at once; fewer take less memory for the same step.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: for models that do not fit otherwise."
    )
    upper_blocks_share: float = Field(
        0.34, gt=0, le=1, description="Share of the blocks, from the top, that are trained."
    )
    max_tokens: int = Field(512, ge=8, description="Longest prompt and completion together, in tokens.")
    eval_every_share: float = Field(0.5, gt=0, le=1, description="Share of the steps between two measurements on dev.")
    save_every_share: float = Field(0.25, gt=0, le=1, description="Share of the steps between two checkpoints.")
    dev_examples: int = Field(64, ge=0, description="Rows of dev that are measured.")
    early_stop_patience: int = Field(
        3, ge=0, description="Measurements on dev in a row that are no better before training stops; 0: never."
    )
    seed: int = Field(0, ge=0, description="Seed of the order of the rows and of the adapter.")
    teacher_share: float = Field(
        0.0, ge=0, le=1, description="Share of the loss that is the divergence from a teacher's probabilities."
    )
    temperature: float = Field(1.0, gt=0, le=20, description="Softens both in that divergence.")
    threads: int = Field(2, ge=1, le=1024, description="CPU threads, over all processes.")
    launch: Launch = Field(Launch(), description="Processes and machines that train together.")

    def identity(self) -> str:
        """JSON of what determines the result; threads and processes change the speed only."""
        return self.model_dump_json(exclude={"threads", "launch"})
