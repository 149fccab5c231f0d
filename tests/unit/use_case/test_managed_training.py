"""A host that trains is named with a base it has, an account, and what decides nothing is no part of the question."""

from typing import Any

import pytest
from pydantic import ValidationError

from leastwise.money.machine_cost import hosted_training, most_hosted_training_usd, worst_machines_usd
from leastwise.money.request_usage import Sizes
from leastwise.money.worst_cost import worst_costs
from leastwise.use_case.price import TrainingPrice
from leastwise.use_case.training import ManagedTraining, Training
from tests.unit.use_cases import LISTED, PLENTY, asked, use_case

PRICE = {"usd_per_million_tokens": 2.0, "source": "its page", "as_of": "2026-11-27"}
BASE = {"uri": "fireworks:accounts/fireworks/models/m", "venue": "managed", "price": {"input": 1.0, "output": 2.0}}


def managed(**changes: Any) -> dict[str, Any]:
    return {"base": BASE, "account": "acme", "price": PRICE} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": BASE | {"uri": "together:m"}}, "is trained by no host that is spoken to here"),
        ({"base": BASE | {"uri": "fireworks:accounts/fireworks/deployments/m"}}, "fireworks/models/NAME"),
        ({"base": BASE | {"venue": "api"}}, "write managed"),
        ({"base": BASE | {"base_url": "https://gateway.example/v1"}}, "must end in /inference/v1"),
        ({"account": "Acme/.."}, "account"),
        ({"account": "-acme"}, "account"),
        ({"rank": 65}, "rank"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"wait_hours": 0}, "wait_hours"),
        ({"poll_seconds": 601}, "poll_seconds"),
        ({"price": PRICE | {"source": ""}}, "source"),
        ({"price": PRICE | {"usd_per_million_tokens": -1}}, "usd_per_million_tokens"),
        ({"price": PRICE | {"usd_per_million_tokens": float("inf")}}, "usd_per_million_tokens"),
    ],
)
def test_what_no_host_takes_is_refused_when_the_use_case_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ManagedTraining.model_validate(managed(**changes))


def test_a_use_case_that_names_no_host_is_written_as_before() -> None:
    assert (
        "managed" not in Training().model_dump()
        and "managed" in Training.model_validate({"managed": managed()}).model_dump()
    )


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in (ManagedTraining.model_fields | TrainingPrice.model_fields).values())


def test_the_price_says_its_source_and_day() -> None:
    price = TrainingPrice.model_validate(PRICE)
    assert price.usd(3_000_000) == 6.0
    assert price.in_words(3_000_000) == "3,000,000 tokens × $2 a million (its page, 2026-11-27) = $6"


def test_a_training_at_a_host_costs_tokens_and_no_machine() -> None:
    here = use_case(training={"usd_per_hour": 5.0})
    there = use_case(training={"usd_per_hour": 5.0, "managed": managed(), "epochs": 2, "max_examples": 2000})
    assert worst_machines_usd(here, "fine_tune") > 0 == worst_machines_usd(there, "fine_tune")
    assert worst_machines_usd(there, "pretrain") > 0, "further pre-training stays on own machines"
    expected = hosted_training(there, Sizes(), PLENTY)
    assert expected.usd > 0 and "api.fireworks.ai" in expected.step and "its page, 2026-11-27" in expected.step
    assert most_hosted_training_usd(here, asked(PLENTY)) == 0


@pytest.mark.parametrize("passes", [1, 3])
def test_answers_and_training_at_a_host_are_estimated_at_their_prices(passes: int) -> None:
    rows = asked(PLENTY)
    trained = rows.model_copy(update={"train": rows.gate})
    there = use_case(training={"managed": managed(), "epochs": passes})
    prices = {"openai:big": LISTED}
    free = worst_costs(use_case(), prices, LISTED, trained)
    paid = worst_costs(there, prices, LISTED, trained)
    training = most_hosted_training_usd(there, trained)
    assert training == pytest.approx((trained.train.rows * trained.trained + trained.train.in_all) * passes * 2e-6)
    assert paid["fine_tune"] > training > 0 == free["fine_tune"]
    assert {stage: usd for stage, usd in paid.items() if stage not in ("fine_tune", "distill")} == {
        stage: usd for stage, usd in free.items() if stage not in ("fine_tune", "distill")
    }
    assert paid["distill"] >= free["distill"], "a teacher that a host trained is asked by the token"
