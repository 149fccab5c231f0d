"""An exact response cache before whatever answers, and what it saved on the traffic it saw.

It lives for one evaluation; nothing is kept between runs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leastwise.prices import Usage

if TYPE_CHECKING:
    import pandas as pd

    from tasks.answering import Answer


class ExactCache:
    """Identical requests are answered from memory: what an exact response cache does to traffic that repeats."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.usd_worst_case = inner.usd_worst_case
        self.fixed_usd_per_request = inner.fixed_usd_per_request
        self.held: dict[str, Answer] = {}
        self.hits = 0
        self.usd = self.usd_uncached = 0.0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Ask only for what was not asked before, in the order of the traffic."""
        fresh = rows.drop_duplicates("text")
        fresh = fresh[~fresh["text"].isin(self.held.keys())]
        first = dict(zip(fresh["text"], self.inner.answer(fresh) if len(fresh) else [], strict=True))
        return [self._one(text, first) for text in rows["text"]]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """Latencies of hits and misses as traffic sees them."""
        return [a.latency_ms for a in answers if a.text is not None and a.latency_ms is not None]

    def saved(self) -> dict[str, float]:
        """What caching was worth on this traffic: hits, and dollars against asking everything with nothing cached."""
        return {
            "cache.exact_hits": float(self.hits),
            "usd.without_cache": self.usd_uncached,
            "usd.saved": self.usd_uncached - self.usd,
        }

    def _one(self, text: str, first: dict[str, Answer]) -> Answer:
        if text in first:
            answer = first.pop(text)
            if answer.text is not None:
                self.held[text] = answer
                self.usd += answer.usd
                self.usd_uncached += self._usd_uncached(answer)
            return answer
        if text not in self.held:
            return Answer(None, None, 0.0, error="the first request with this text was lost")
        started = time.perf_counter()
        held = self.held[text]
        self.hits += 1
        self.usd_uncached += self._usd_uncached(held)
        looked_up_ms = (time.perf_counter() - started) * 1000
        return replace(held, latency_ms=looked_up_ms, usd=0.0, input_tokens=0, cached_tokens=0, output_tokens=0, from_store=True)


    def _usd_uncached(self, answer: Answer) -> float:
        price = self.inner.price
        return price.usd(Usage(answer.input_tokens, 0, 0, answer.output_tokens)) if price else 0.0
