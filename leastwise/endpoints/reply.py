"""What became of a request. It decides nothing: a lost request is never an empty answer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from leastwise.endpoints.request import Request
from leastwise.stores.answer_store import StoredAnswer


@dataclass(frozen=True)
class Reply:
    """What became of one request. `error` is set when the infrastructure lost it: then there is no answer to score.

    `latency_ms` and `usd` are those of the call that bought the answer, also when it comes from the store (where it
    costs nothing now). An empty or refused answer is an answer: `error` is None.
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


def reply_of(request: Request, answer: StoredAnswer, *, from_store: bool) -> Reply:
    """An answer as a reply to this request."""
    tokens = asdict(answer.usage)
    return Reply(
        row_id=request.row_id,
        text=answer.text,
        latency_ms=answer.latency_ms,
        usd=answer.usd,
        from_store=from_store,
        error=None,
        finish_reason=answer.finish_reason,
        confidence=answer.confidence,
        **tokens,
    )


def lost(request: Request, error: str | None) -> Reply:
    """What stands for an answer that the infrastructure lost."""
    return Reply(request.row_id, "", math.nan, 0, 0, 0, 0, 0.0, False, error or "lost", "error")
