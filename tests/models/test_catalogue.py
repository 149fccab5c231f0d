"""What a token of a candidate costs where it answers: its own price, a host's, none on own machines; never
free by default.
"""

from datetime import date
from pathlib import Path

import pytest

from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook, UnknownPrice
from leastwise.use_case import UseCase
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Price
from tests.unit.use_cases import CHEAP, LISTED, use_case

HOSTING = {"managed_price": {"input": 0.2, "output": 0.8}}
TRAINED = Weights(kind="adapter", uri="file:///adapter", revision="r")


def catalogue(case: UseCase, price: Price | None = None) -> Catalogue:
    """A catalogue in which every listed model has this price, or nobody knows one."""
    models = case.models.model_copy(
        update={"candidates": tuple(model.model_copy(update={"price": price}) for model in case.models.candidates)}
    )
    book = PriceBook(as_of=date(2026, 1, 1))
    return Catalogue(case.model_copy(update={"models": models}), book, Path("nowhere"))


def candidate(venue: Venue, weights: Weights | None = None) -> Candidate:
    return Candidate(stage="prompt", model="openai:big", venue=venue, weights=weights)


def test_own_machines_have_no_price_a_token_and_none_is_looked_up() -> None:
    nobody_knows = catalogue(use_case())
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
