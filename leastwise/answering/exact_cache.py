"""Sampled traffic replayed through the response cache of production: what repeats, when, and what that saves.

The cache is the real one (`leastwise.stores.response_cache`) with the replay's clock: an answer that is too old by the
time its request comes again, or was pushed out by others, is bought again. It lives for one evaluation. A text is asked
once whatever the cache forgets: buying it again is counted at what it cost the first time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Answerer, latencies_of
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.rows.tables import TIME
from leastwise.stores.response_cache import FileCache, response_key
from leastwise.use_case.price import Price, Usage

if TYPE_CHECKING:
    import pandas as pd


class ExactCache:
    """An answerer behind a response cache, asked in the order of the traffic.

    `requests_per_s` spaces requests evenly where the traffic does not say when they came. `open_bare` opens who answers
    with no cache at all, where that is somebody else than `inner`.
    """

    def __init__(
        self,
        inner: Answerer,
        candidate: Candidate,
        requests_per_s: float,
        stack: ExitStack,
        open_bare: Callable[[], Answerer] | None = None,
    ) -> None:
        self.inner, self.candidate, self._open_bare = inner, candidate, open_bare
        self.usd_worst_case = inner.usd_worst_case
        self.hits = self.requests = 0
        self.usd = self.usd_uncached = self.input_usd = self.input_usd_uncached = 0.0
        self.input_tokens = self.cached_tokens = 0
        self._known: dict[str, Answer] = {}
        self._now, self._step = 0.0, 1 / requests_per_s
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        policy = candidate.cache
        self._cache = FileCache(Path(folder) / "replay.db", policy.ttl_s, policy.most_bytes, clock=lambda: self._now)
        stack.callback(self._cache.close)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Every request in the order of the traffic: from the cache, or as the candidate behind it answers."""
        fresh = rows.drop_duplicates("text")
        fresh = fresh[[text not in self._known for text in fresh["text"]]]
        new = dict(zip(fresh["text"], self.inner.answer(fresh) if len(fresh) else [], strict=True))
        times = rows[TIME] if TIME in rows else [None] * len(rows)
        return [self._one(text, at, new) for text, at in zip(rows["text"], times, strict=True)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """Latencies of hits and misses as traffic sees them; a miss that was not timed here is timed behind it."""
        times = latencies_of(answers)
        untimed = [at for at, each in enumerate(answers) if each.text is not None and each.latency_ms is None]
        if untimed:
            behind = self.inner.timed(rows.iloc[untimed], [answers[at] for at in untimed])
            for at, took in zip(untimed, behind, strict=True):
                times[at] = took
        return times

    @property
    def fixed_usd_per_request(self) -> float:
        """That of the candidate behind it."""
        return self.inner.fixed_usd_per_request

    @property
    def price(self) -> Price | None:
        """That of the candidate behind it."""
        return self.inner.price

    @property
    def uncached(self) -> Answerer:
        """Who answers behind the cache, since a cache says the same by construction."""
        return self.inner

    @cached_property
    def without_caches(self) -> Answerer:
        """The same candidate without any cache, whose answers are kept where it was gated: a cache changes none."""
        return self._open_bare() if self._open_bare else self.inner

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The candidate behind it asked once more."""
        return self.inner.again(rows)

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Nothing: what is stored is not sampled."""
        return []

    def figures(self) -> dict[str, float]:
        """What caching was worth on this traffic, against asking everything with nothing cached.

        The saving on input and the saving on the bill are two figures: output is never cached by a provider.
        """
        return self.inner.figures() | {
            "cache.exact_hits": float(self.hits),
            "cache.hit_rate": self.hits / max(self.requests, 1),
            "cache.cached_share": self.cached_tokens / max(self.input_tokens, 1),
            "cache.input_saving": 1 - self.input_usd / self.input_usd_uncached if self.input_usd_uncached else 0.0,
            "cache.bill_saving": 1 - self.usd / self.usd_uncached if self.usd_uncached else 0.0,
            "usd.without_cache": self.usd_uncached,
            "usd.saved": self.usd_uncached - self.usd,
        }

    def _one(self, text: str, at: float | None, new: dict[str, Answer]) -> Answer:
        self._now = self._now + self._step if at is None else at
        is_first = text in new
        if is_first:
            self._known[text] = new.pop(text)
        answer = self._known[text]
        if answer.text is None:  # as its first request was lost, so are those that repeat it
            return answer
        key, started = response_key(self.candidate, text), time.perf_counter()
        is_hit = self._cache.get(key) is not None
        looked_up_ms = (time.perf_counter() - started) * 1000
        self._count(answer, is_hit)
        if is_hit:
            return replace(
                answer,
                latency_ms=looked_up_ms,
                usd=0.0,
                input_tokens=0,
                cached_tokens=0,
                output_tokens=0,
                from_store=True,
            )
        self._cache.put(key, answer.text.encode())
        return answer if is_first else replace(answer, from_store=True)

    def _count(self, answer: Answer, is_hit: bool) -> None:
        self.requests += 1
        self.hits += is_hit
        price = self.inner.price
        if price:
            plain = Usage(answer.input_tokens, 0, 0, answer.output_tokens)
            self.usd_uncached += price.usd(plain)
            self.input_usd_uncached += price.usd(replace(plain, output_tokens=0))
        if is_hit:
            return
        self.usd += answer.usd
        self.input_tokens += answer.input_tokens
        self.cached_tokens += answer.cached_tokens
        if price:
            self.input_usd += price.usd(Usage(answer.input_tokens, answer.cached_tokens, 0, 0))
