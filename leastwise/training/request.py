"""A training as data: what is asked of each process, and what it came to. It trains nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from leastwise.metrics.task_metric import metric_of
from leastwise.models.weights import directory_hash
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_rows import TokenRow
from leastwise.use_case.task import Task


class DevMetric(BaseModel):
    """Mean quality of greedy answers to `prompts`, in 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    prompts: tuple[str, ...] = Field(min_length=1, description="In chat format, ready for the answer.")
    expected: tuple[str, ...] = Field(description="As the task's expected answers are written, one a prompt.")
    max_new_tokens: int = Field(ge=1, description="Most tokens an answer may have.")

    def of(self, answers: Sequence[str]) -> float:
        """The mean quality of the answers, which are in the order of the prompts."""
        score = metric_of(self.task)
        scored = [score(answer, label).quality for answer, label in zip(answers, self.expected, strict=True)]
        return sum(scored) / len(scored)


class TrainingRequest(BaseModel):
    """A training as data: what each of several processes reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    encoded: list[TokenRow] = Field(description="Rows as tokens: input_ids, and labels with -100 where no loss is.")
    watched: list[TokenRow] = Field(description="Dev rows as tokens.")
    settings: TrainingSettings
    dev_metric: DevMetric | None = None
    teacher: Path | None = Field(None, description="A model directory whose probabilities are learned from too.")

    @cached_property
    def key(self) -> str:
        """Hash of all that determines what is trained: equal keys are the same training, kept under it."""
        chosen = json.loads(self.settings.identity())
        metric = self.dev_metric.model_dump(mode="json") if self.dev_metric else None
        teacher = [directory_hash(self.teacher)] if self.teacher else []
        content = json.dumps(
            [directory_hash(self.base), chosen, self.encoded, self.watched, metric, *teacher], sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class TrainingReport(BaseModel):
    """What a training did; stored as `training.json` beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(description="Hash of settings, base and data: equal keys are the same training.")
    settings: TrainingSettings
    base_revision: str
    examples: int
    steps: int
    resumed_from_step: int
    seconds: float = Field(description="Of training since the last start, without loading.")
    examples_per_s: float
    trainable_share: float = Field(description="Share of all weights that were trained.")
    train_losses: tuple[float, ...] = Field(description="Nats a completion token, at even distances.")
    dev_losses: tuple[float, ...]
    dev_metrics: tuple[float, ...] = Field((), description="The task's metric on dev rows, at the same distances.")
    best_step: int = Field(description="The step whose weights were kept: the best on dev, or the last without dev.")
    reload_difference: float = Field(description="Largest difference of a logit after saving and loading again.")
    replica_difference: float = Field(
        0.0,
        description="Largest difference of a trained weight between processes that hold a copy each, as a share of its "
        "tensor's largest; 0: not a bit.",
    )
    dtype: str
    versions: dict[str, str]

    def figures(self) -> dict[str, float]:
        """What MLflow shows of it as metrics."""
        return {
            "examples": self.examples,
            "steps": self.steps,
            "seconds": self.seconds,
            "examples_per_s": self.examples_per_s,
            "trainable_share": self.trainable_share,
            "reload_difference": self.reload_difference,
            "loss": self.train_losses[-1],
            "best_step": self.best_step,
            **({"replica_difference": self.replica_difference} if self.settings.launch.together > 1 else {}),
            **({"dev_loss": self.dev_losses[-1]} if self.dev_losses else {}),
            **({"dev_metric": max(self.dev_metrics)} if self.dev_metrics else {}),
        }
