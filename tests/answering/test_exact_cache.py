"""Traffic replayed through a response cache: what repeats is not bought again, what that saves, and what is
never kept.
"""

from contextlib import ExitStack
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.exact_cache import ExactCache
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.metrics.answer import Answer
from leastwise.rows.tables import TIME
from leastwise.use_case.price import Price

CANDIDATE = Candidate(stage="rag", model="openai:m", venue="api")


class Inner(PlainAnswerer):
    """Answers every text for real money; 60 of 100 input tokens are cached at the provider."""

    usd_worst_case = 1.0
    fixed_usd_per_request = 0.0
    price = Price(input=1.0, cached=0.1, output=2.0)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        self.asked += list(rows["text"])
        return [self._one(text) for text in rows["text"]]

    @staticmethod
    def _one(text: str) -> Answer:
        if text == "lost":
            return Answer(None, None, 0.0, error="cut")
        return Answer("x" * 100, 100.0, (40 + 6 + 20) / 1e6, 100, 60, 10)


def replayed(rows: pd.DataFrame, **policy: Any) -> tuple[list[Answer], dict[str, float], Inner]:
    inner, candidate = Inner(), CANDIDATE.model_copy(update={"cache": CachePolicy(exact=True, **policy)})
    with ExitStack() as stack:
        cache = ExactCache(inner, candidate, 1.0, stack)
        half = len(rows) // 2
        answers = cache.answer(rows[:half]) + cache.answer(rows[half:])
        return answers, cache.figures(), inner


def test_input_saving_and_bill_saving_are_two_figures() -> None:
    answers, saved, inner = replayed(pd.DataFrame({"text": ["a", "b", "a", "b"]}))
    assert inner.asked == ["a", "b"]
    assert [a.usd for a in answers[2:]] == [0.0, 0.0] and all(a.from_store for a in answers[2:])
    assert (saved["cache.exact_hits"], saved["cache.hit_rate"], saved["cache.cached_share"]) == (2, 0.5, 0.6)
    assert saved["usd.without_cache"] == pytest.approx(4 * 120 / 1e6)
    assert saved["usd.saved"] == pytest.approx((4 * 120 - 2 * 66) / 1e6)
    assert saved["cache.input_saving"] == pytest.approx(1 - 2 * 46 / 400)
    assert saved["cache.bill_saving"] == pytest.approx(1 - 2 * 66 / 480)


def test_what_comes_again_too_late_is_bought_again_and_asked_only_once() -> None:
    rows = pd.DataFrame({"text": ["a", "a", "a", "a"], TIME: [0.0, 50.0, 120.0, 190.0]})
    answers, saved, inner = replayed(rows, ttl_s=100)
    assert [a.usd > 0 for a in answers] == [True, False, True, False]
    assert inner.asked == ["a"] and [a.from_store for a in answers] == [False, True, True, True]
    assert saved["cache.hit_rate"] == 0.5


def test_a_store_too_small_for_what_repeats_saves_less() -> None:
    rows = pd.DataFrame({"text": [f"text {i % 10}" for i in range(100)]})
    assert replayed(rows)[1]["cache.hit_rate"] == 0.9
    assert replayed(rows, most_bytes=300)[1]["cache.hit_rate"] == 0.0  # two answers: each is gone before it comes again


def test_without_times_requests_come_evenly_at_the_traffics_rate() -> None:
    rows = pd.DataFrame({"text": ["a", "b", "b", "a"]})
    assert replayed(rows, ttl_s=2)[1]["cache.exact_hits"] == 1


def test_what_was_lost_is_lost_each_time_and_never_kept() -> None:
    answers, saved, _ = replayed(pd.DataFrame({"text": ["lost", "a", "lost", "a"]}))
    assert [a.text is None for a in answers] == [True, False, True, False] and saved["cache.exact_hits"] == 1
