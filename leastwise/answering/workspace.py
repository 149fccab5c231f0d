"""What everything under one climb works with: the question, the models and prices, the money, the record, the answers.

It answers nothing and judges nothing. It is opened once by whoever starts something (see `tasks.session.workspace`)
and handed on; what needs one part of it takes that part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from leastwise.answering.asked import asked_of
from leastwise.ladder.alphas import Alphas, alphas_of
from leastwise.ladder.candidate import Candidate
from leastwise.models.catalogue import Catalogue
from leastwise.progress import Display, NoDisplay
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.climb_run import ClimbRun
from leastwise.record.costing import Costing
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.budget import Budget
from leastwise.use_case import UseCase


@dataclass(frozen=True)
class Workspace:
    """The parts of one climb (or of an upkeep run that measures)."""

    question: Question
    catalogue: Catalogue
    budget: Budget
    run: ClimbRun
    account: AlphaAccount
    answers: ResponseStore
    home: Path
    display: Display = field(default_factory=NoDisplay)

    @property
    def use_case(self) -> UseCase:
        """What is asked for."""
        return self.question.use_case

    @property
    def tables(self) -> Tables:
        """Its rows."""
        return self.question.tables

    @cached_property
    def alphas(self) -> Alphas:
        """Error probabilities of every candidate of this climb; the first use draws on the gate set's account."""
        return alphas_of(self.use_case, self.account.draw(self.question, self.question.key, self.use_case.alpha))

    @cached_property
    def costing(self) -> Costing:
        """What its stages are expected to cost, as far as is known by now."""
        return Costing(self.question, self.catalogue, lambda: asked_of(self.question), lambda: self.alphas, self.run)

    def need_parent(self) -> Candidate:
        """The best candidate so far; RuntimeError where no stage was evaluated yet."""
        parent = self.run.parent(self.use_case.gate_requirements)
        if parent is None:
            raise RuntimeError(f"climb {self.run.id} has no evaluated stage to start from")
        return parent

    @property
    def fetched(self) -> Path:
        """Where trained weights are kept that were fetched from elsewhere."""
        return self.home / "fetched"
