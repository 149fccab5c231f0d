"""A named model that is gone or going is warned of, by dated data; the day is handed in."""

from datetime import date, datetime
from pathlib import Path

import pytest
import yaml

from leastwise.money import PriceBook
from leastwise.money.retirement import Retirement, retirement_warnings
from leastwise.stores.shipped import PRICE_BOOK, USE_CASES

ROOT = Path(__file__).parents[3]
GOING = {"openai:old": Retirement(last_day=date(2026, 12, 11), successor="openai:new", source="their page")}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.model_validate(yaml.safe_load(PRICE_BOOK.read_text()))


@pytest.mark.parametrize(
    ("today", "words"),
    [
        (date(2026, 10, 11), None),
        (date(2026, 10, 12), "goes on 2026-12-11, in 60 days"),
        (date(2026, 12, 11), "in 0 days"),
        (date(2026, 12, 12), "is gone since 2026-12-11"),
    ],
)
def test_a_model_is_warned_of_from_sixty_days_before_it_goes(today: date, words: str | None):
    warnings = retirement_warnings(["openai:old", "openai:old", "openai:other"], GOING, today)
    assert len(warnings) == (words is not None)
    assert all(words and words in warning and "name openai:new" in warning for warning in warnings)


@pytest.mark.parametrize("snapshot", ["openai:old-2026-01-31", "openai:old-20260131", "openai:old-latest"])
def test_a_dated_snapshot_goes_with_its_model(snapshot: str):
    assert retirement_warnings([snapshot], GOING, date(2026, 12, 1))
    assert not retirement_warnings(["openai:old-mini"], GOING, date(2026, 12, 1))


def test_the_book_says_what_the_sdk_says_and_names_successors_that_have_a_price(book: PriceBook):
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    for name, day in DEPRECATED_MODELS.items():
        words = day.replace("st,", ",").replace("nd,", ",").replace("rd,", ",").replace("th,", ",")
        assert book.retirements[f"anthropic:{name}"].last_day == datetime.strptime(words, "%B %d, %Y").date(), name
    for each in book.retirements.values():
        assert each.successor is None or book.price(each.successor).input > 0


def test_no_example_names_a_model_that_is_gone_or_going(book: PriceBook):
    texts = [path.read_text() for path in [*USE_CASES.glob("*.yaml"), *(ROOT / "docs").glob("*.md")]]
    named = {uri for uri in book.retirements for text in texts if f'"{uri}"' in text}
    assert not named
