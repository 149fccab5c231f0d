"""How far something long is, and who is shown it. It prints nothing: a `Display` outside the library does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EvaluationProgress:
    """How far an evaluation is, in rows; `to_go` is about how many more decide it, None where that is not known."""

    stage: str
    rows: int
    of: int
    usd: float
    estimates: Mapping[str, float]
    to_go: int | None = None


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands; `loss` is the mean since the last report, nats."""

    step: int
    steps: int
    loss: float
    seconds: float
    seconds_left: float


class Display(Protocol):
    """Who is shown how far a climb is; called often, so it decides itself what to show."""

    def show_evaluation(self, progress: EvaluationProgress) -> None:
        """Rows answered so far."""
        ...

    def show_training(self, progress: TrainingProgress) -> None:
        """Steps trained so far."""
        ...

    def show_embedding(self, done: int, of: int) -> None:
        """Texts embedded so far."""
        ...


class NoDisplay:
    """Nobody is shown anything."""

    def show_evaluation(self, progress: EvaluationProgress) -> None:
        """Nothing."""

    def show_training(self, progress: TrainingProgress) -> None:
        """Nothing."""

    def show_embedding(self, done: int, of: int) -> None:
        """Nothing."""
