"""One answer to one row: what was said, what it took and what it cost. It scores nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One answer; `text` is None where the infrastructure lost it; `scope` is the score a guard compares.

    `latency_ms` is that of the first time it was answered where it is judged (rule 8), None where it was never asked
    over HTTP there. Where not `usage_known`, tokens and dollars are the most it can have been.
    `finish_reason` is why the model stopped, in the provider layer's words (stop, length, content_filter).
    `answered_by` is the model that the response named; empty where it named none.
    `label` is what is meant, told in production; None where the task has no labels, or none of them was meant.
    """

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
    finish_reason: str = ""
    usage_known: bool = True
    label: str | None = None
    answered_by: str = ""
