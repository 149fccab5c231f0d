"""Training on machines of one's own: an adapter whose weights lie here. What it does is in
`leastwise.training.stage_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass

from leastwise.answering.servers import prove_servable
from leastwise.answering.workspace import Workspace
from leastwise.training.hosted.trainer import Tuned
from leastwise.training.stage_weights import Trained, train_adapter
from leastwise.use_case import Stage


@dataclass(frozen=True)
class Here:
    """A `Trainer` on the use case's base, or on a further pre-trained one by its URI."""

    base: str | None = None

    def train(self, work: Workspace, stage: Stage) -> Tuned:
        """As `Trainer.train`."""
        trained = self.adapter(work, stage)
        return Tuned(trained.weights, trained.search)

    def adapter(self, work: Workspace, stage: Stage) -> Trained:
        """The adapter, once its base was held to what will serve it."""
        base_dir = work.model_dir(self.base) if self.base else work.catalogue.base_dir()
        prove_servable(work.home, base_dir, self.base or work.catalogue.base().uri)
        return train_adapter(work, stage, base_dir)
