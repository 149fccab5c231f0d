"""What trains, and what comes of it: weights that are here, or a model at a host. It trains nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Weights
from leastwise.part import Part
from leastwise.use_case import Stage


class HostedModel(Part):
    """A model that a host trained and serves; its weights stay there."""

    uri: str
    revision: str = ""


Made = Weights | HostedModel


@dataclass(frozen=True)
class Tuned:
    """What was trained; `search` is the table of trials, where settings were searched for."""

    made: Made
    search: str = ""


class Trainer(Protocol):
    """Trains a use case's examples, once."""

    def train(self, work: Workspace, stage: Stage) -> Tuned:
        """Train, or find what was trained of the same; it is paid as that stage. BudgetExceeded where a cap does not
        allow it.
        """
        ...
