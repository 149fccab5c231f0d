"""What a token of a candidate costs where it answers: its own price, a host's, none on own machines; never
free by default.
"""

from datetime import date
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook, UnknownPrice
from leastwise.use_case import UseCase
from leastwise.use_case.habits import NO_HABITS
from leastwise.use_case.model import Model, Venue
from leastwise.use_case.price import Price
from tests.unit.use_cases import CHEAP, LISTED, use_case

HOSTING = {"managed_price": {"input": 0.2, "output": 0.8}}
TRAINED = Weights(kind="adapter", uri="file:///adapter", revision="r")


def catalogue(case: UseCase, price: Price | None = None, **named: object) -> Catalogue:
    """A catalogue in which every listed model has this price, or nobody knows one, and is `named` like this."""
    update = {"price": price, **named}
    models = case.models.model_copy(
        update={"candidates": tuple(model.model_copy(update=update) for model in case.models.candidates)}
    )
    book = PriceBook(as_of=date(2026, 1, 1))
    return Catalogue(case.model_copy(update={"models": models}), book, Path("nowhere"))


def candidate(venue: Venue, weights: Weights | None = None) -> Candidate:
    return Candidate(stage="prompt", model="openai:big", venue=venue, weights=weights)


def test_own_machines_have_no_price_a_token_and_none_is_looked_up() -> None:
    nobody_knows = catalogue(use_case(), base_url="http://gpu-1.internal:8000/v1")
    assert nobody_knows.price_in_venue(candidate("self_host")) is None
    assert nobody_knows.worst_case_usd(candidate("self_host")) == 0.0


def test_own_weights_at_a_host_are_billed_at_its_price_where_the_file_says_it() -> None:
    hosted = use_case(hosting=HOSTING)
    assert catalogue(hosted).price_in_venue(candidate("managed", TRAINED)) == hosted.hosting.managed_price
    assert catalogue(use_case(), CHEAP).price_in_venue(candidate("managed", TRAINED)) == CHEAP
    assert catalogue(hosted, LISTED).price_in_venue(candidate("managed")) == LISTED


def test_a_model_nobody_has_priced_is_an_error_not_free() -> None:
    with pytest.raises(UnknownPrice, match="openai:big"):
        catalogue(use_case()).price_in_venue(candidate("api"))


def test_the_worst_request_fills_the_context_with_the_longest_answer() -> None:
    case = use_case()
    limit, context = case.traffic.output_tokens, case.models.candidates[0].context_tokens
    expected = LISTED.worst_case_usd(context - limit, limit)
    assert catalogue(case, LISTED).worst_case_usd(candidate("api")) == expected > 0


OPEN = "hf://org/model"
ELSEWHERE, OWN = "https://api.together.xyz/v1", "http://10.0.0.7:8000/v1"


@pytest.mark.parametrize(
    ("venue", "base_url", "is_metered"),
    [
        ("api", None, True),
        ("managed", None, True),
        ("managed", ELSEWHERE, True),
        ("self_host", ELSEWHERE, True),
        ("self_host", "https://llm.example.com/v1", True),
        ("self_host", None, True),
        ("self_host", OWN, False),
        ("self_host", "http://vllm:8000/v1", False),
        ("self_host", "http://[::1]:8000/v1", False),
        ("self_host", "http://gpu-1.internal:8000/v1", False),
    ],
)
def test_whatever_is_not_served_by_ourselves_is_metered(venue: Venue, base_url: str | None, is_metered: bool) -> None:
    listed = catalogue(use_case(), CHEAP, venue=venue, base_url=base_url)
    assert listed.is_metered(candidate(venue)) == is_metered
    assert (listed.price_in_venue(candidate(venue)) == CHEAP) == is_metered
    if is_metered:
        with pytest.raises(UnknownPrice, match="openai:big"):
            catalogue(use_case(), venue=venue, base_url=base_url).price_in_venue(candidate(venue))


@pytest.mark.parametrize(
    ("venue", "base_url", "asked_as", "weights", "is_here"),
    [
        ("api", None, "api", None, True),
        ("api", ELSEWHERE, "api", None, False),
        ("api", ELSEWHERE, "self_host", None, True),
        ("self_host", OWN, "self_host", None, False),
        ("self_host", OWN, "self_host", TRAINED, True),
        ("managed", ELSEWHERE, "managed", TRAINED, True),
    ],
)
def test_what_a_stage_made_or_moves_to_own_machines_is_never_asked_of_somebody_elses_server(
    venue: Venue, base_url: str | None, asked_as: Venue, weights: Weights | None, is_here: bool
) -> None:
    listed = catalogue(use_case(), CHEAP, uri=OPEN, venue=venue, base_url=base_url)
    asked = Candidate(stage="self_host", model=OPEN, venue=asked_as, weights=weights)
    assert listed.is_served_here(asked) == is_here
    if is_here:
        assert listed.is_metered(asked) == (asked_as == "api")


def test_a_hosted_model_has_the_revision_the_use_case_gives_it_and_without_one_older_keys_stay() -> None:
    case = use_case()
    assert catalogue(case, revision="2026-11").revision("openai:big") == "2026-11"
    assert catalogue(case).revision("openai:big") == ""
    assert "revision" not in case.models.candidates[0].model_dump()
    named = case.models.candidates[0].model_copy(update={"revision": "2"})
    assert type(named).model_validate(named.model_dump()) == named


def test_one_uri_with_two_addresses_is_refused_since_one_would_be_taken_for_the_other() -> None:
    case = use_case()
    first = case.models.candidates[0].model_copy(update={"price": CHEAP})
    other = first.model_copy(update={"base_url": ELSEWHERE})
    models = case.models.model_copy(update={"candidates": (first, other)})
    listed = Catalogue(case.model_copy(update={"models": models}), PriceBook(as_of=date(2026, 1, 1)), Path("nowhere"))
    with pytest.raises(BadInput, match="twice, with another base_url"):
        listed.check_prices(["prompt"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "is listed twice; list it once"),
        ({"price": Price(input=9, output=9)}, "is listed twice, with another price"),
        ({"reasoning": "high"}, "is listed twice, with another reasoning"),
        ({"context_tokens": 512, "venue": "managed"}, "is listed twice, with another venue and context_tokens"),
    ],
)
def test_one_uri_with_two_settings_is_refused_since_the_first_would_be_taken_for_both(
    changes: dict[str, object], words: str
) -> None:
    case = use_case()
    first = case.models.candidates[0].model_copy(update={"price": CHEAP})
    models = case.models.model_copy(update={"candidates": (first, first.model_copy(update=changes))})
    listed = Catalogue(case.model_copy(update={"models": models}), PriceBook(as_of=date(2026, 1, 1)), Path("nowhere"))
    with pytest.raises(BadInput, match=rf"models\.candidates: {first.uri} {words}"):
        listed.check_prices(["prompt"])


def test_weights_that_a_stage_made_inherit_from_the_base_but_not_its_address_name_key_or_habits() -> None:
    """Without an adapter too: whoever serves the base serves nothing that was made of it."""
    case = use_case()
    said = {"uri": OPEN, "base_url": ELSEWHERE, "served_name": "base", "key_variable": "KEY", "price": CHEAP}
    base = Model.model_validate({**said, "habits": {"system_role": False}, "context_tokens": 777})
    made = "file:///state/bases/further-pretrained"
    models = case.models.model_copy(update={"base": base})
    listed = Catalogue(case.model_copy(update={"models": models}), PriceBook(as_of=date(2026, 1, 1)), Path("nowhere"))
    known = listed.model(made)
    assert (known.base_url, known.served_name, known.key_variable, known.habits) == (None, None, None, NO_HABITS)
    assert known.context_tokens == 777 and known.request_host == "api.together.xyz"
    for weights in (None, TRAINED):
        assert listed.is_served_here(Candidate(stage="pretrain", model=made, venue="api", weights=weights))
    assert not listed.is_served_here(Candidate(stage="prompt", model=OPEN, venue="api"))
