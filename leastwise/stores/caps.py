"""What may be spent, on what, and what is raised where a cap is in the way.

It books nothing (see `leastwise.stores.ledger`).
"""

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["data", "teacher", "judge", "training", "evaluation", "search", "serving"]


@dataclass(frozen=True)
class Caps:
    """The two hard limits: `usd` for one climb, `usd_per_month` for all a use case does (None: no such limit)."""

    climb_id: str
    usd: float | None = None
    usd_per_month: float | None = None


class BudgetExceeded(RuntimeError):  # noqa: N818 (an outcome of a climb, not a defect)
    """A call was not sent because its worst case could pass a cap; what was answered before is kept."""

    def __init__(self, limit: str, cap_usd: float, spent_usd: float, reserved_usd: float, worst_usd: float) -> None:
        self.limit, self.cap_usd, self.spent_usd, self.reserved_usd = limit, cap_usd, spent_usd, reserved_usd
        self.remedy = f"raise {limit} above {spent_usd + reserved_usd + worst_usd:.6f} and run again; nothing is lost"
        super().__init__(
            f"{limit} of ${cap_usd:.6f} would be passed: ${spent_usd:.6f} spent, ${reserved_usd:.6f} reserved by calls "
            f"in flight, the next call costs up to ${worst_usd:.6f}. Remedy: {self.remedy}"
        )
