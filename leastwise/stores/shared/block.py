"""What a process writes to the shared state at once: a block of reservations, endings of calls, answers and times.

It holds them and writes nothing (see `booking.py` and `keeping.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from leastwise.stores.answer_store import StoredAnswer
from leastwise.stores.caps import BudgetExceeded, Caps, Purpose
from leastwise.stores.ledger import Ended
from leastwise.use_case.price import Usage


@dataclass(frozen=True)
class Kept:
    """An answer under its key."""

    key: str
    answer: StoredAnswer


@dataclass(frozen=True)
class Timed:
    """How long what is kept under a key took in a place, milliseconds."""

    key: str
    place: str
    latency_ms: float


@dataclass(frozen=True)
class Closing:
    """How a call ended; `actual_nano` None is its worst case."""

    id: int
    state: Ended
    actual_nano: int | None
    usage: Usage


@dataclass
class Reserving:
    """Calls that are to be reserved, all or none, and what became of that: ids, or why not."""

    caps: Caps
    use_case: str
    stage: str
    worsts: Sequence[int]
    purpose: Purpose
    promised: Future[list[int]] = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    refused: BudgetExceeded | None = None

    def tell(self) -> None:
        """Say it to whoever waits."""
        if self.refused:
            self.promised.set_exception(self.refused)
        else:
            self.promised.set_result(self.ids)


@dataclass
class Block:
    """All that was waiting when it was taken; it is written in one transaction. Numbers of a process count up."""

    number: int
    kept: list[Kept] = field(default_factory=list)
    timed: list[Timed] = field(default_factory=list)
    closing: list[Closing] = field(default_factory=list)
    reserving: list[Reserving] = field(default_factory=list)

    def add(self, *more: Kept | Timed | Closing) -> None:
        """Add what is not waited for."""
        self.kept += [each for each in more if isinstance(each, Kept)]
        self.timed += [each for each in more if isinstance(each, Timed)]
        self.closing += [each for each in more if isinstance(each, Closing)]

    @property
    def is_empty(self) -> bool:
        """Whether it only says that its process lives."""
        return not (self.kept or self.timed or self.closing or self.reserving)
