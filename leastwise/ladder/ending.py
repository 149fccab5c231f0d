"""How a command ended, as data: the fields of each are the JSON line it prints. It prints nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

from leastwise.run_id import RunId

CLIMB_STATUS = {"none": 3, "budget": 3, "rejected": 3, "undecided": 4, "error": 1}
STAGE_STATUS = {"PASS": 0, "FAIL": 3, "budget": 3, "UNDECIDED": 4}
UPKEEP_STATUS = {"drift": 3, "budget": 3, "error": 1}


class Ending(Protocol):
    """What a command ends with: the fields of its JSON line, and the exit status that says the same to a shell."""

    @property
    def exit_status(self) -> int:
        """0 where what was asked for is there."""
        ...

    def fields(self) -> dict[str, object]:
        """What the JSON line holds."""
        ...


@dataclass(frozen=True)
class _Fields:
    def fields(self) -> dict[str, object]:
        """What the JSON line holds."""
        return asdict(self)


@dataclass(frozen=True)
class ClimbEnding(_Fields):
    """How a climb ended. `sure`: the gate decided what it stopped at. `accepted`: a person, or `accept_estimate` of the
    use case, takes what it did not.
    """

    outcome: str
    reason: str
    usd_spent: float
    usd_avoided: float
    calls_paid: int
    calls_cached: int
    confirmed: str
    mlflow_run_id: RunId
    sure: bool = True
    accepted: bool = False

    @property
    def exit_status(self) -> int:
        """0 passed, 3 none, budget or rejected, 4 undecided or passed by an estimate that nobody accepted, 1 error."""
        passed = 0 if self.sure or self.accepted else CLIMB_STATUS["undecided"]
        return CLIMB_STATUS.get(self.outcome, passed)


@dataclass(frozen=True)
class StageEnding(_Fields):
    """What a stage that was run on its own came to."""

    outcome: str
    reason: str
    usd_spent: float
    calls_paid: int
    mlflow_run_id: RunId
    sure: bool = True

    @property
    def exit_status(self) -> int:
        """0 PASS, 3 FAIL or budget, 4 UNDECIDED, 1 ERROR."""
        return STAGE_STATUS.get(self.outcome, 1)


@dataclass(frozen=True)
class GateEnding(_Fields):
    """What one candidate that somebody proposed came to at the gate; `candidate` is its key, `table` its gate table in
    Markdown.
    """

    outcome: str
    reason: str
    usd_spent: float
    calls_paid: int
    candidate: str
    mlflow_run_id: RunId
    table: str = ""

    @property
    def exit_status(self) -> int:
        """0 PASS, 3 FAIL or budget, 4 UNDECIDED, 1 what could not be measured."""
        return STAGE_STATUS.get(self.outcome, 1)


@dataclass(frozen=True)
class UpkeepEnding(_Fields):
    """How an upkeep flow (retrain, drift, rebaseline, promote, rollback) ended."""

    outcome: str
    reason: str
    usd_spent: float
    calls_paid: int
    mlflow_run_id: RunId

    @property
    def exit_status(self) -> int:
        """0 done, quiet or nothing to do; 3 drift or budget; 1 error."""
        return UPKEEP_STATUS.get(self.outcome, 0)


@dataclass(frozen=True)
class AdviceEnding(_Fields):
    """What was advised; `cheaper`: what would make it cheaper to decide, the most dollars first."""

    outcome: str
    reason: str
    expected_stop: str | None
    usd_spent: float
    calls_paid: int
    mlflow_run_id: RunId
    cheaper: tuple[str, ...] = ()
    exit_status: ClassVar[int] = 0


@dataclass(frozen=True)
class PrepareEnding(_Fields):
    """What was prepared: the use case's file, and the rows of each of its tables."""

    outcome: str
    reason: str
    use_case: str
    rows: dict[str, int]
    usd_spent: float
    calls_paid: int
    mlflow_run_id: RunId
    exit_status: ClassVar[int] = 0


@dataclass(frozen=True)
class AuditEnding(_Fields):
    """What an audit came to: how many verdicts were judged again, and which runs, or what in a certificate, differ."""

    outcome: str
    reason: str
    checked: int
    differing: tuple[str, ...]
    usd_spent: float = 0.0
    calls_paid: int = 0

    @property
    def exit_status(self) -> int:
        """0 where every verdict agrees, 1 where one differs or a certificate is not signed or has expired."""
        return 0 if self.outcome == "agrees" else 1


@dataclass(frozen=True)
class ServeEnding(_Fields):
    """What an endpoint did until it was asked to end. `requests`: answered ones."""

    outcome: str
    reason: str
    requests: int
    usd_spent: float
    calls_paid: int
    exit_status: ClassVar[int] = 0
