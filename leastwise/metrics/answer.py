"""One answer to one row: what was said, what it took and what it cost. It scores nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Answer:
    """One answer; `text` is None where the infrastructure lost it; `scope` is the score a guard judged it by."""

    text: str | None
    latency_ms: float | None
    usd: float
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    from_store: bool = False
    error: str | None = None
    confidence: float | None = None
    energy: float | None = None
    scope: float | None = None
    escalated: bool = False
