"""Who pays for calls: the worst case of each reserved before it is sent, settled after at what it came to.

It sends nothing and keeps no answer (see `leastwise.endpoints.inference`, `batches`).
"""

from __future__ import annotations

from collections.abc import Callable

from leastwise.endpoints.reply import usd_of
from leastwise.endpoints.request import Request, usd_worst
from leastwise.stores.answer_store import StoredAnswer
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import Meter, current_month
from leastwise.use_case.price import Usage


class Till:
    """A meter and a price for the calls of one client; without a meter calls are free.

    Where a server used more than the most it was allowed (it ignores the cap on output), what it used is booked, and
    from then on so many times the worst case is reserved: a cap holds but for what was in flight at the first time.
    """

    def __init__(self, meter: Meter | None, price: Callable[[Usage], float]) -> None:
        self.meter, self.price = meter, price
        self._overrun = 1.0

    def reserve(self, request: Request) -> int | None:
        """Reserve a call's worst case; raises BudgetExceeded where a cap could break."""
        return self.meter.reserve(self._overrun * usd_worst(request, self.price)) if self.meter else None

    def settle(self, reservation: int | None, request: Request, answer: StoredAnswer) -> None:
        """Book an answer that came, at its worst where its usage is not known.

        Raises BudgetExceeded where it cost more than was reserved and a cap is passed by that; it is booked then.
        """
        if self.meter is None or reservation is None:
            return
        try:
            usd, worst = usd_of(request, answer, self.price), usd_worst(request, self.price)
        except BaseException:
            self.close(reservation, is_billed=True)
            raise
        if answer.usage_known or usd > worst:
            self.meter.ledger.settle(reservation, usd, answer.usage)
        else:
            self.meter.ledger.settle_at_worst(reservation)
        if usd > worst > 0:
            self._overrun = max(self._overrun, usd / worst)
            _require_room(self.meter)

    def close(self, reservation: int | None, *, is_billed: bool) -> None:
        """Settle a call that brought no answer: at its worst where it may be billed, else it is released."""
        if self.meter and reservation is not None:
            ledger = self.meter.ledger
            (ledger.settle_at_worst if is_billed else ledger.release)(reservation)


def _require_room(meter: Meter) -> None:
    """Raise BudgetExceeded where a cap is passed already."""
    ledger, caps = meter.ledger, meter.caps
    spent = {
        "budget_usd": (caps.usd, ledger.spent(caps.climb_id)),
        "budget_usd_per_month": (caps.usd_per_month, ledger.spent_month(meter.use_case, current_month())),
    }
    for limit, (cap_usd, usd) in spent.items():
        if cap_usd is not None and usd > cap_usd:
            raise BudgetExceeded(limit, cap_usd, usd, ledger.reserved(caps.climb_id), 0.0)
