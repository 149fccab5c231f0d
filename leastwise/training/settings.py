"""How a causal model is trained. It trains nothing and chooses nothing."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.models.machine import THREADS
from leastwise.stores import storage
from leastwise.use_case.training import LONGEST_TOKENS, PACKED_TOKENS, Launch, Training

_DEFAULT = Training()  # what a use case says that says nothing of it


class TrainingSettings(BaseModel):
    """How to train; the defaults suit a 100M-parameter model on two cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lora", "full"] = Field(
        _DEFAULT.method, description="lora trains adapters of 0.1-2% of the weights."
    )
    rank: int = Field(_DEFAULT.rank, ge=1, le=512, description="Rank of the LoRA matrices.")
    alpha: float = Field(32.0, gt=0, description="LoRA scaling: the update is multiplied by alpha / rank.")
    learning_rate: float = Field(
        _DEFAULT.learning_rate,
        gt=0,
        lt=1,
        description="Peak learning rate; 1e-3 to 2e-3 for LoRA, 1e-5 to 1e-4 for full.",
    )
    warmup_share: float = Field(0.06, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    epochs: int = Field(_DEFAULT.epochs, ge=1, le=100, description="Passes over the examples.")
    max_examples: int = Field(
        _DEFAULT.max_examples, ge=1, description="Examples seen in all, every epoch counted; drawn at random."
    )
    batch_size: int = Field(_DEFAULT.batch_size, ge=1, le=4096, description="Examples a step, over all processes.")
    examples_at_once: int = Field(
        8,
        ge=1,
        le=4096,
        description="Most examples a process computes at once; fewer take less memory for the same step.",
    )
    gradient_checkpointing: bool = Field(
        _DEFAULT.gradient_checkpointing,
        description="Compute activations twice instead of keeping them: for models that do not fit otherwise.",
    )
    upper_blocks_share: float = Field(
        _DEFAULT.upper_blocks_share, gt=0, le=1, description="Share of the blocks, from the top, that are trained."
    )
    max_tokens: int = Field(LONGEST_TOKENS, ge=8, description="Longest prompt and completion together, in tokens.")
    eval_every_share: float = Field(0.5, gt=0, le=1, description="Share of the steps between two measurements on dev.")
    save_every_share: float = Field(0.25, gt=0, le=1, description="Share of the steps between two checkpoints.")
    dev_examples: int = Field(_DEFAULT.dev_rows, ge=0, description="Rows of dev that are measured.")
    early_stop_patience: int = Field(
        _DEFAULT.early_stop_patience,
        ge=0,
        description="Measurements on dev in a row that are no better before training stops; 0: never.",
    )
    seed: int = Field(_DEFAULT.seed, ge=0, description="Seed of the order of the rows and of the adapter.")
    teacher_share: float = Field(
        0.0, ge=0, le=1, description="Share of the loss that is the divergence from a teacher's probabilities."
    )
    temperature: float = Field(1.0, gt=0, le=20, description="Softens both in that divergence.")
    threads: int = Field(THREADS, ge=1, le=1024, description="CPU threads, over all processes.")
    launch: Launch = Field(Launch(), description="Processes and machines that train together.")
    quantize: Literal["nf4"] | None = Field(None, description="Holds the base in 4 bits while an adapter is trained.")
    checkpoints: str = Field("", description="URI of a folder that all machines reach; empty: checkpoints stay here.")

    def identity(self) -> str:
        """JSON of what determines the result; threads and processes change the speed only.

        What came later is not written while it has its default, so that what was trained before is found.
        """
        later = set() if self.quantize else {"quantize"}
        return self.model_dump_json(exclude={"threads", "launch", "checkpoints"} | later)

    def at_once(self, processes: int, at_most: int | None = None) -> int:
        """Examples one of them computes at once: the largest equal part of its share of a step within the limit, and
        within `at_most` where fewer are known to fit.

        BadInput where a step cannot be shared evenly.
        """
        if self.batch_size % processes:
            raise BadInput(
                f"training.batch_size: {self.batch_size} examples a step cannot be shared by {processes} processes; "
                "make it a multiple"
            )
        share = self.batch_size // processes
        limit = min(share, self.examples_at_once, at_most or share)
        return next(part for part in range(limit, 0, -1) if share % part == 0)


def pretraining_settings_of(training: Training) -> TrainingSettings:
    return TrainingSettings(
        seed=training.seed,
        max_examples=training.pretrain_steps * training.batch_size,
        batch_size=training.batch_size,
        max_tokens=PACKED_TOKENS,
        method=training.pretrain_method,
        learning_rate=training.pretraining_rate,
        rank=training.rank,
        upper_blocks_share=training.upper_blocks_share,
        gradient_checkpointing=training.gradient_checkpointing,
        quantize=training.quantize,
        checkpoints=training.checkpoints,
        launch=training.launch,
    )


def settings_of(training: Training) -> TrainingSettings:
    """What the use case says of how to train."""
    return TrainingSettings(
        method=training.method,
        rank=training.rank,
        learning_rate=training.learning_rate,
        max_examples=training.max_examples,
        max_tokens=training.max_tokens,
        upper_blocks_share=training.upper_blocks_share,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=training.seed,
        gradient_checkpointing=training.gradient_checkpointing,
        quantize=training.quantize,
        checkpoints=training.checkpoints,
        early_stop_patience=training.early_stop_patience,
        launch=training.launch,
        dev_examples=training.dev_rows,
        eval_every_share=1 / training.dev_checks,
    )


def check_together(training: Training) -> None:
    """Raises BadInput where its processes could not train together: a step that they cannot share, or a folder for what
    other machines need that nobody can write to.
    """
    launch = training.launch
    places = [training.checkpoints, launch.request if launch.nodes > 1 else ""]
    writable = [partial(storage.check_writable, place) for place in dict.fromkeys(filter(None, places))]
    refuse(problems_of([partial(settings_of(training).at_once, launch.together), *writable]))
