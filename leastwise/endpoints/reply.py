"""What became of a request, in today's dollars. It decides nothing: a lost request is never an empty answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from leastwise.endpoints.received import UNREADABLE
from leastwise.endpoints.request import Request, unknown_usage, usd_at_most
from leastwise.stores.answer_store import StoredAnswer
from leastwise.use_case.price import Usage


@dataclass(frozen=True)
class Reply:
    """What became of one request. `error` is set when the infrastructure lost it: then there is no answer to score.

    `latency_ms` is that of the call that bought the answer, also when it comes from the store, NaN where it was not
    timed in the place it is wanted for. `usd` is what its usage costs today (nothing now, if it comes from the store).
    Where the provider does not say what was used (`usage_known` is false), tokens and dollars are the most it can be.
    An empty or refused answer is an answer: `error` is None.
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
        **asdict(usage),
    )


def usd_of(request: Request, answer: StoredAnswer, price: Callable[[Usage], float]) -> float:
    """Dollars of an answer at this price; the most it can have cost where its usage is not known."""
    return price(answer.usage) if answer.usage_known else usd_at_most(unknown_usage(request, answer.text), price)


def lost(request: Request, error: str | None) -> Reply:
    """What stands for an answer that the infrastructure lost."""
    return Reply(request.row_id, "", math.nan, 0, 0, 0, 0, 0.0, False, error or "lost", "error")
