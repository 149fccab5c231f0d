"""How a use case trains: limits of a training, its machines, and what comes with it.

It trains nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.part import Part, written_but_for
from leastwise.use_case.model import Model
from leastwise.use_case.price import Gpu, TrainingPrice
from leastwise.use_case.student import EncoderStudent, Student

DEFAULT_REPLAY_SHARE = 0.1  # see Training.replay_share
PACKED_TOKENS = 128  # of one sequence of continued pre-training, to which documents are packed
_TUNABLE = re.compile(r"^fireworks:accounts/[a-z0-9-]+/models/[a-z0-9.-]+$")
INFERENCE = "/inference/v1"  # the end of the address where the host answers; its jobs are beside it
LONGEST_TOKENS = 512  # of one example, prompt and answer together, and of a text that is only measured


class Multipliers(Part):
    """What surrounds one training in its first year, as multiples of its cost: judgement, to be edited, not measured.

    The defaults make the whole 7 times the training, inside the 5-10 times that is usually named.
    """

    curation: float = Field(2.0, ge=0, allow_inf_nan=False, description="Collecting, cleaning and labelling examples.")
    evaluation: float = Field(
        0.5, ge=0, allow_inf_nan=False, description="Gate and test sets, and looking at failures."
    )
    retraining: float = Field(2.0, ge=0, allow_inf_nan=False, description="Trainings that follow within the year.")
    people: float = Field(1.5, ge=0, allow_inf_nan=False, description="Whoever builds and watches it.")


class Search(Part):
    """A small search before the training.

    Every combination is tried on few examples, the better half on twice as many, and so on.
    """

    ranks: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        (8, 16), min_length=1, max_length=8, description="Ranks to try."
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (1e-3, 2e-3), min_length=1, max_length=8, description="Peak learning rates to try."
    )
    epochs: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (1,),
        min_length=1,
        max_length=8,
        description="Passes to try: as many examples are seen, of fewer different rows.",
    )
    first_examples: int = Field(320, ge=16, description="Examples each combination sees in the first round.")

    @property
    def trials(self) -> int:
        """Combinations."""
        return len(self.ranks) * len(self.learning_rates) * len(self.epochs)


class Launch(Part):
    """How many processes train together.

    Each step's examples are divided among them, so that the steps stay the same.
    """

    processes: int = Field(
        1, ge=1, le=64, description="Processes on each machine: one a GPU; on a CPU they share its threads."
    )
    nodes: int = Field(1, ge=1, le=256, description="Machines; the worker's own is the first, the others join it.")
    meet_at: str = Field(
        "",
        pattern=r"^([A-Za-z0-9._-]+:[0-9]{1,5})?$",
        description="host:port of the first machine, reached by the others; needed for more than one.",
    )
    request: str = Field(
        "",
        pattern=r"^((file:///|s3://)[^@]+)?$",
        description="file:///FOLDER or s3://BUCKET/PREFIX that all machines reach: rows and base are put there for the "
        "others, and checkpoints. Empty: training.checkpoints, else beside what is made, on storage all of them see.",
    )
    join_within_s: int = Field(
        600, ge=5, le=86_400, description="Seconds the first machine waits for the others; then it says who is missing."
    )
    shard: bool | None = Field(
        None,
        description="Whether each process holds only its share of the model (FSDP); empty: on GPUs, where there are "
        "several.",
    )

    @property
    def together(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return written_but_for(write(self), request="", join_within_s=600)

    @model_validator(mode="after")
    def _several_machines_meet_somewhere(self) -> Launch:
        if self.nodes > 1 and not self.meet_at:
            raise ValueError("nodes: more than one machine needs meet_at, the host:port of the first")
        return self


class ManagedTraining(Part):
    """`fine_tune` at a host that trains open weights and serves the adapter by the token: where no GPU is at hand."""

    base: Model = Field(
        description="Open weights as the host names them, venue: managed, with price (or from the price book): "
        "fireworks:accounts/fireworks/models/NAME, one whose adapters the host serves by the token."
    )
    account: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="The account at the host that trains and is billed.",
    )
    when: Literal["no_gpu", "always"] = Field(
        "no_gpu",
        description="no_gpu: only where there is neither a pool with GPUs (LEASTWISE_POOLS=1) nor a GPU of this "
        "machine, or models.base names nothing to train there; always.",
    )
    rank: int = Field(
        16, ge=1, le=64, description="Rank of the adapter; what the host serves by the token has 64 at most."
    )
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="Peak learning rate; empty: the host's own choice."
    )
    price: TrainingPrice | None = Field(None, description="What the training costs; empty: from the price book.")
    wait_hours: float = Field(
        24.0, gt=0, le=168, description="How long a job is waited for; it goes on there, and is found again."
    )
    poll_seconds: float = Field(20.0, gt=0, le=600, description="Seconds between two looks at it.")

    @model_validator(mode="after")
    def _is_at_one_host_that_trains(self) -> Self:
        if not _TUNABLE.match(self.base.uri):
            raise ValueError(
                f"base.uri: {self.base.uri} is trained by no host that is spoken to here; name "
                "fireworks:accounts/fireworks/models/NAME"
            )
        if self.base.venue != "managed":
            raise ValueError(f"base.venue: {self.base.venue}, and what is trained there answers there; write managed")
        if self.base.base_url and not self.base.base_url.rstrip("/").endswith(INFERENCE):
            raise ValueError(f"base.base_url: must end in {INFERENCE}, for its jobs are asked for beside it")
        return self

    @property
    def made(self) -> str:
        """What the URIs of all models begin with that were trained here."""
        return f"fireworks:accounts/{self.account}/models/lw-"


class Training(Part):
    """Limits of training and what its hardware costs."""

    usd_per_hour: float = Field(
        0.0,
        ge=0,
        description="Dollars an hour of one training machine with all its GPUs; 0 with a gpu: from the price book.",
    )
    launch: Launch = Field(Launch(), description="Processes and machines that train together.")
    gpu: Gpu | None = Field(
        None, description="GPU of the training machine, whose speed estimates take; empty: this machine."
    )
    managed: ManagedTraining | None = Field(
        None, description="Train at a host instead of on own machines, where no GPU is at hand; empty: never."
    )
    method: Literal["lora", "full"] = Field("lora", description="lora trains adapters of 0.1-2% of the weights.")
    max_examples: int = Field(2400, ge=1, description="Examples seen in one training, all epochs together.")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="Peak learning rate.")
    rank: int = Field(16, ge=1, le=512, description="Rank of the LoRA matrices.")
    upper_blocks_share: float = Field(
        0.34, gt=0, le=1, description="Share of the blocks, from the top, that are trained."
    )
    epochs: int = Field(
        1,
        ge=1,
        le=100,
        description="Passes over rows; max_examples counts them all, so more passes see fewer different rows.",
    )
    batch_size: int = Field(16, ge=1, le=4096, description="Examples a step, over all processes.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: for models that do not fit otherwise."
    )
    quantize: Literal["nf4"] | None = Field(
        None,
        description="Hold the base in 4 bits (nf4) while fine_tune and pretrain train adapters (QLoRA): a quarter of "
        "its memory; needs leastwise[quantize] where it is trained. Empty: in 16 bits.",
    )
    checkpoints: str = Field(
        "",
        pattern=r"^((file:///|s3://).+)?$",
        description="file:///FOLDER or s3://BUCKET/PREFIX that every training machine reaches: checkpoints are put "
        "there too, so that another worker goes on where one was killed. Empty: they stay on the worker.",
    )
    prompt: Literal["instruction", "empty"] = Field(
        "instruction",
        description="System turn of trained candidates; empty is shorter: the adapter is for this one task anyway.",
    )
    dev_checks: int = Field(2, ge=1, le=100, description="How often a training is measured on dev; its best is kept.")
    dev_rows: int = Field(64, ge=1, le=2000, description="Dev rows a training is measured on, by greedy answers.")
    early_stop_patience: int = Field(
        3, ge=0, description="Measurements on dev in a row that are no better before training stops; 0: never."
    )
    search: Search | None = Field(
        None, description="Choose rank, learning rate and epochs on dev first; empty: as given here."
    )
    teacher_labels: int = Field(3000, ge=100, description="Texts a teacher labels for distillation, at most.")
    choose_labels: Literal["active", "random"] = Field(
        "active",
        description="Which texts it labels where there are more: in four rounds those a cheap model is unsure of, or "
        "any.",
    )
    student: Student = Field(EncoderStudent(), description="What the teacher is distilled into.")
    label_in_batches: bool = Field(
        False,
        description="Buy an api teacher's labels through its batch interface: about half the price, up to a day's "
        "wait.",
    )
    pretrain_steps: int = Field(60, ge=1, description="Optimizer steps of continued pre-training.")
    pretrain_method: Literal["lora", "full"] = Field(
        "lora", description="lora: adapters, merged into the base afterwards; full: the blocks themselves."
    )
    pretrain_learning_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Peak learning rate of continued pre-training; empty: a fifth of learning_rate, for full a "
        "hundredth.",
    )
    replay_share: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="Share of the packed sequences of continued pre-training that are general text (data.general), "
        "against forgetting; empty: 0.1 where data.general is set, else none.",
    )
    whole_models: str = Field(
        "",
        pattern=r"^(s3://[^/@\s]+(/[^@\s]*)?)?$",
        description="s3:// prefix where further pre-trained bases and whole students are put for other machines; "
        "empty: in MLflow's files, as adapters are.",
    )
    max_tokens: int = Field(
        LONGEST_TOKENS,
        ge=64,
        le=131_072,
        description="Longest training example, prompt and answer together, in tokens; a longer one is refused.",
    )
    seed: int = Field(0, ge=0, description="Seed of every shuffle and initialisation.")
    retrain_every_days: int = Field(90, ge=1, description="Days between retrainings, for recurring cost.")
    labels_per_retraining: int = Field(0, ge=0, description="New labels bought for one retraining.")
    usd_per_label: float = Field(0.0, ge=0, description="Dollars a human label costs.")
    surrounding: Multipliers = Field(Multipliers(), description="What comes with a training, as multiples of its cost.")

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before these settings were there is still the same question."""
        later: dict[str, object] = {"quantize": None, "checkpoints": "", "whole_models": "", "managed": None}
        return written_but_for(write(self), max_tokens=LONGEST_TOKENS, **later)

    @model_validator(mode="after")
    def _only_adapters_are_trained_on_4_bits(self) -> Training:
        if self.quantize and "full" in (self.method, self.pretrain_method):
            raise ValueError("quantize: 4 bits can carry adapters only; set method and pretrain_method to lora")
        if self.quantize and self.launch.shard:
            raise ValueError("quantize: 4 bits are not sharded; leave launch.shard empty, each process holds them all")
        return self

    @property
    def pretraining_rate(self) -> float:
        """Peak learning rate of continued pre-training."""
        return self.pretrain_learning_rate or self.learning_rate / (5 if self.pretrain_method == "lora" else 100)

    @property
    def machines_usd_per_hour(self) -> float:
        """Dollars an hour of all machines that train together."""
        return self.usd_per_hour * self.launch.nodes
