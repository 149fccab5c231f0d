"""A request costs what its venue bills: tokens at an api, a minimum at a host, whole machines of one's own."""

import pytest

from leastwise.ladder.candidate import Candidate, Weights
from leastwise.ladder.venue_cost import fixed_usd_per_request, price_of, retraining_usd_per_month, worst_case_usd_of
from leastwise.money import UnknownPrice
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Price
from tests.unit.use_cases import CHEAP, LISTED, use_case

HOSTING = {
    "usd_per_month_per_machine": 300.0,
    "spare_machines": 1,
    "storage_usd_per_month": 10.0,
    "operations_usd_per_month": 90.0,
    "managed_minimum_usd_per_month": 50.0,
    "managed_price": {"input": 0.2, "output": 0.8},
}
TRAINED = Weights(kind="adapter", uri="file:///adapter", revision="r")


def nobody_knows(uri: str) -> Price:
    raise UnknownPrice(uri)


def candidate(venue: Venue, weights: Weights | None = None) -> Candidate:
    return Candidate(stage="prompt", model="openai:big", venue=venue, weights=weights)


def test_own_machines_have_no_price_a_token_and_none_is_looked_up() -> None:
    assert price_of(use_case(), candidate("self_host"), nobody_knows) is None
    assert worst_case_usd_of(use_case(), None, 2048) == 0.0


def test_own_weights_at_a_host_are_billed_at_its_price_where_the_file_says_it() -> None:
    hosted = use_case(hosting=HOSTING)
    assert price_of(hosted, candidate("managed", TRAINED), nobody_knows) == hosted.hosting.managed_price
    assert price_of(use_case(), candidate("managed", TRAINED), lambda uri: CHEAP) == CHEAP
    assert price_of(hosted, candidate("managed"), lambda uri: LISTED) == LISTED


def test_a_model_nobody_has_priced_is_an_error_not_free() -> None:
    with pytest.raises(UnknownPrice, match="openai:big"):
        price_of(use_case(), candidate("api"), nobody_knows)


@pytest.mark.parametrize(
    ("venue", "speed", "usd_a_month"),
    [("api", None, 0.0), ("managed", None, 50 + 30), ("self_host", None, 5 * 300 + 100 + 30), ("self_host", 2.0, 1030)],
)
def test_what_is_paid_by_the_month_is_shared_by_its_requests(
    venue: Venue, speed: float | None, usd_a_month: float
) -> None:
    labels = {"labels_per_retraining": 100, "usd_per_label": 0.3, "retrain_every_days": 365}
    busy = use_case(hosting=HOSTING, training=labels, traffic={"requests_per_month": 1000, "peak_requests_per_s": 4.0})
    recurring = retraining_usd_per_month(busy)
    assert recurring == pytest.approx(30 / 12)
    expected = usd_a_month - 30 + recurring if usd_a_month else 0.0
    assert fixed_usd_per_request(busy, venue, speed) == pytest.approx(expected / 1000)


def test_the_worst_request_fills_the_context_with_the_longest_answer() -> None:
    limit = use_case().traffic.output_tokens
    assert worst_case_usd_of(use_case(), LISTED, 2048) == LISTED.worst_case_usd(2048 - limit, limit)
