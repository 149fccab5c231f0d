"""A named model that is gone or going is warned of, by dated data; the day is handed in."""

from datetime import date, datetime
from pathlib import Path

import pytest
import yaml

from leastwise.money import PriceBook
from leastwise.money.retirement import Retirement, retirement_warnings
from leastwise.stores.shipped import PRICE_BOOK, USE_CASES

ROOT = Path(__file__).parents[3]
GOING = {"openai:old": Retirement(last_day=date(2026, 12, 11), basis="announced", successor="openai:new", source="p")}


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


def test_what_is_reported_is_not_called_announced_and_names_no_successor():
    said = Retirement(last_day=date(2026, 12, 11), basis="reported", source="a blog, October")
    for today, when in ((date(2026, 12, 1), "goes on 2026-12-11"), (date(2027, 1, 1), "is gone since 2026-12-11")):
        (warning,) = retirement_warnings(["openai:old"], {"openai:old": said}, today)
        assert when in warning and "reported, not announced" in warning and "(a blog, October)" in warning
        assert "name another model" in warning
    announced = retirement_warnings(["openai:old"], GOING, date(2026, 12, 1))
    assert "reported" not in announced[0]
    with pytest.raises(ValueError, match="only a provider names one"):
        Retirement(last_day=date(2026, 12, 11), basis="reported", successor="openai:new", source="a blog")


def test_every_entry_of_the_book_says_where_it_stands_and_when_it_was_looked_up(book: PriceBook):
    for uri, each in book.retirements.items():
        assert "2026" in each.source and len(each.source) > len("November 2026"), uri
        assert each.basis == "reported" or any(own in each.source for own in ("SDK", "developers.openai.com")), uri


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
