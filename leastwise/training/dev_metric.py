"""The task's own metric on dev rows while a model is trained: what its checkpoints are compared by.

It generates nothing and chooses nothing. It is data, so that every process of a training computes the same figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from leastwise.metrics.task_metric import metric_of
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
