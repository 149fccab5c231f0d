"""How a climb ended, as data; its fields are the JSON line a command prints."""

from __future__ import annotations

from dataclasses import dataclass

EXIT_STATUS = {"none": 3, "budget": 3, "rejected": 3, "undecided": 4, "error": 1}


@dataclass(frozen=True)
class Ending:
    """How a climb ended; its fields are the JSON line a command prints."""

    outcome: str
    reason: str
    usd_spent: float
    usd_avoided: float
    calls_paid: int
    calls_cached: int
    confirmed: str
    mlflow_run_id: str

    @property
    def exit_status(self) -> int:
        """0 passed, 3 none, budget or rejected, 4 undecided, 1 error."""
        return EXIT_STATUS.get(self.outcome, 0)
