"""What became of a request, in today's dollars, and who pays for it: the worst case reserved before, settled after.

It decides nothing: a lost request is never an empty answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass

from leastwise.endpoints.received import UNREADABLE
from leastwise.endpoints.request import Request, unknown_usage, usd_at_most, usd_worst
from leastwise.stores.answer_store import StoredAnswer
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger import Meter, current_month
from leastwise.use_case.price import Usage


@dataclass(frozen=True)
class Reply:
    """What became of one request. `error` is set when the infrastructure lost it: then there is no answer to score.

    `latency_ms` is that of the call that bought the answer, also when it comes from the store, NaN where it was not
    timed in the place it is wanted for. `usd` is what its usage costs today (nothing now, if it comes from the store).
    Where the provider does not say what was used (`usage_known` is false), tokens and dollars are the most it can be.
    An empty or refused answer is an answer: `error` is None. `answered_by` is the model that the response named.
    """

    row_id: str
    text: str
    latency_ms: float
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    usd: float
    from_store: bool
    error: str | None
    finish_reason: str
    confidence: float | None = None
    usage_known: bool = True
    answered_by: str = ""


def reply_of(request: Request, answer: StoredAnswer, price: Callable[[Usage], float], *, from_store: bool) -> Reply:
    """An answer as a reply to this request; what came and cannot be read is lost, and is not bought again."""
    usage = answer.usage if answer.usage_known else unknown_usage(request, answer.text)
    is_unreadable = answer.finish_reason == UNREADABLE
    return Reply(
        row_id=request.row_id,
        text="" if is_unreadable else answer.text,
        latency_ms=math.nan if answer.latency_ms is None else answer.latency_ms,
        usd=usd_of(request, answer, price),
        from_store=from_store,
        error=f"an answer that came cannot be read, and is kept as received: {answer.raw[:200]}"
        if is_unreadable
        else None,
        finish_reason=answer.finish_reason,
        confidence=answer.confidence,
        usage_known=answer.usage_known,
        answered_by=answer.answered_by,
        **asdict(usage),
    )


def usd_of(request: Request, answer: StoredAnswer, price: Callable[[Usage], float]) -> float:
    """Dollars of an answer at this price; the most it can have cost where its usage is not known."""
    return price(answer.usage) if answer.usage_known else usd_at_most(unknown_usage(request, answer.text), price)


def lost(request: Request, error: str | None, finish_reason: str = "error") -> Reply:
    """What stands for an answer that the infrastructure lost."""
    return Reply(request.row_id, "", math.nan, 0, 0, 0, 0, 0.0, False, error or "lost", finish_reason)


class Till:
    """A meter and a price for the calls of one client; without a meter calls are free.

    Where a server used more than the most it was allowed (it ignores the cap on output), what it used is booked, and
    from then on so many times the worst case is reserved: a cap holds but for what was in flight at the first time.
    """

    def __init__(self, meter: Meter | None, price: Callable[[Usage], float]) -> None:
        self.meter, self.price = meter, price
        self._overrun = 1.0

    async def promised(self, request: Request) -> int | None:
        """Reserve a call's worst case; raises BudgetExceeded where a cap could break.

        The event loop goes on meanwhile; what is reserved when nobody waits any more is given back.
        """
        if self.meter is None:
            return None
        promise = self.meter.promise_all([self._overrun * usd_worst(request, self.price)])
        if promise.done():
            return promise.result()[0]
        try:
            return (await asyncio.wrap_future(promise))[0]
        except asyncio.CancelledError:
            promise.add_done_callback(self._give_back)
            raise

    def reserve_all(self, requests: Iterable[Request]) -> list[int]:
        """Reserve the worst cases of all or of none, as `promised`; empty where calls are free."""
        worsts = [self._overrun * usd_worst(request, self.price) for request in requests]
        return self.meter.promise_all(worsts).result() if self.meter else []

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

    def _give_back(self, promise: Future[list[int]]) -> None:
        if not promise.cancelled() and promise.exception() is None:
            self.close(promise.result()[0], is_billed=False)

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
