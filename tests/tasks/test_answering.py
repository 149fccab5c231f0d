"""What caches are worth: a repeated request costs nothing, and what it would have cost is counted."""

import pandas as pd
import pytest

from leastwise.prices import Price
from tasks.answering import Answer
from tasks.exact_cache import ExactCache


class Inner:
    """Answers every text for real money; 60 of 100 input tokens are cached at the provider."""

    usd_worst_case = 1.0
    fixed_usd_per_request = 0.0
    price = Price(input=1.0, cached=0.1, output=2.0)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        self.asked += list(rows["text"])
        return [Answer("x", 100.0, (40 + 6 + 20) / 1e6, 100, 60, 10) for _ in rows["text"]]


def test_savings_are_counted_against_asking_everything_with_nothing_cached() -> None:
    inner = Inner()
    cache = ExactCache(inner)
    answers = cache.answer(pd.DataFrame({"text": ["a", "b", "a"]})) + cache.answer(pd.DataFrame({"text": ["b"]}))
    assert inner.asked == ["a", "b"]
    assert [a.usd for a in answers[2:]] == [0.0, 0.0]
    saved = cache.saved()
    assert saved["cache.exact_hits"] == 2
    assert saved["usd.without_cache"] == pytest.approx(4 * 120 / 1e6)
    assert saved["usd.saved"] == pytest.approx((4 * 120 - 2 * 66) / 1e6)
