"""What a job at a host costs, reserved before anything is sent there and settled by what the job says.

It asks no host.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from leastwise.stores.ledger import MACHINE, Meter


@dataclass
class JobBill:
    """The reservations of one job, dollars; a cap that does not allow more raises BudgetExceeded."""

    meter: Meter
    reserved_usd: float = 0.0
    reservations: list[int] = field(default_factory=list)

    @classmethod
    def opened(cls, meter: Meter, usd_worst: float) -> JobBill:
        """The bill of a job that may cost so much."""
        bill = cls(replace(meter, stage=meter.stage + MACHINE))
        bill.cover(usd_worst)
        return bill

    def cover(self, usd: float) -> None:
        """Have at least so much reserved."""
        if usd > self.reserved_usd or not self.reservations:
            more = max(0.0, usd - self.reserved_usd)
            self.reservations.append(self.meter.reserve(more))
            self.reserved_usd += more

    def settle(self, usd: float) -> None:
        """Replace what is reserved by what it came to."""
        first, *more = self.reservations
        self.meter.ledger.settle(first, usd)
        self._let_go(more)

    def settle_at_worst(self) -> None:
        """Count all that is reserved: what it came to is not known."""
        for reservation in self.reservations:
            self.meter.ledger.settle_at_worst(reservation)

    def release(self) -> None:
        """It was surely not billed."""
        self._let_go(self.reservations)

    def _let_go(self, reservations: list[int]) -> None:
        for reservation in reservations:
            self.meter.ledger.release(reservation)
