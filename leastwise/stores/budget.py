"""The money of one run: what its use case may spend, what was spent so far, and on what.

It prices and estimates nothing and decides nothing: it binds a ledger to a run and to the caps of its use case.
"""

from __future__ import annotations

from dataclasses import dataclass

from leastwise.stores.caps import Caps, Purpose
from leastwise.stores.ledger import Ledger, Meter, current_month
from leastwise.use_case import UseCase


@dataclass(frozen=True)
class Budget:
    """A ledger seen by one run of a flow (a climb, a re-training), which pays by `run_id`. Every figure in dollars."""

    ledger: Ledger
    run_id: str
    use_case: UseCase

    def meter(self, stage: str, purpose: Purpose = "evaluation") -> Meter:
        """The hard caps of this run and month, for one stage's calls or machines."""
        caps = Caps(self.run_id, self.use_case.budget_usd, self.use_case.budget_usd_per_month)
        return Meter(self.ledger, caps, self.use_case.name, stage, purpose)

    @property
    def usd_spent(self) -> float:
        """Dollars this run has spent, over all its processes and resumptions."""
        return self.ledger.spent(self.run_id)

    @property
    def usd_spent_this_month(self) -> float:
        """Dollars every flow of the use case has spent this calendar month (UTC)."""
        return self.ledger.spent_month(self.use_case.name, current_month())

    @property
    def calls(self) -> int:
        """How many calls were billed to this run, or may have been."""
        return self.ledger.calls(self.run_id)

    def spent_by(self, stage: str) -> float:
        """Dollars settled for one stage of this run, calls and machines."""
        return self.ledger.spent_by(self.run_id, stage)

    def spent_by_purpose(self) -> dict[Purpose, float]:
        """Dollars settled for this run by purpose, dearest first."""
        return self.ledger.spent_for(self.run_id)

    def spent_by_purpose_of(self, stage: str) -> dict[Purpose, float]:
        """Dollars settled for one stage of this run by purpose, dearest first."""
        return self.ledger.spent_for_stage(self.run_id, stage)
