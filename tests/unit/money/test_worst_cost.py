"""What a stage may cost at worst grows with all that may be asked."""

import pytest

from leastwise.money.expected_cost import Facts, expected_costs
from leastwise.money.worst_cost import worst_costs
from leastwise.serving.live_model import TRIES
from leastwise.serving.smoke import ROWS as ROWS_ASKED
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.price import Price
from tests.unit.use_cases import LISTED, PLENTY, asked, use_case

ROWS = PLENTY | {"out_of_scope": 0, "shifted": 0, "graded": 0}


def test_a_guard_may_ask_everything_again_and_dev_rows_of_both_kinds() -> None:
    asks = {
        "task": {"instruction": "Route it.", "labels": ["a", "b"], "decline_label": "none"},
        "data": {"gate": "g.csv", "test": "t.csv", "train": "r.csv", "out_of_scope": "o.csv"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "ood_decline": {"bound": 0.8, "margin": 0.1}},
    }
    rows = ROWS | {"out_of_scope": 200}
    prices = {"openai:big": LISTED}
    without, offered = (
        worst_costs(use_case(**asks, guard={"offered": is_offered, "dev_rows": 300}), prices, LISTED, asked(rows))
        for is_offered in (False, True)
    )
    judged = rows["gate"] + rows["out_of_scope"] + rows["shifted"]
    a_call = without["rag"] / (2 * judged + rows["test"])  # in two forms, and the winner on test
    assert offered["rag"] - without["rag"] == pytest.approx(a_call * (judged + 600), rel=0.03)
    assert offered["prompt"] == without["prompt"]


def test_what_a_model_and_a_judge_may_think_is_in_the_worst_case_and_the_expectation() -> None:
    def costs(**thinks: object) -> tuple[float, float]:
        fields = use_case(requirements={"quality": {"bound": 0.8, "margin": 0.1}}).model_dump(mode="json") | {
            "task": {"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"},
            "models": {"candidates": [{"uri": "openai:big", **thinks}]},
            "judge": {"models": [{"uri": "openai:critic", **thinks}], "criteria": "It helps."},
        }
        case = UseCase.model_validate(fields)
        facts = Facts(prices={"openai:big": LISTED}, judge_price=LISTED, rows=ROWS, alpha_pass=0.05, alpha_fail=0.05)
        worst = worst_costs(case, {"openai:big": LISTED}, None, asked(ROWS), LISTED)["prompt"]
        return worst, expected_costs(case, facts)["prompt"].usd

    (worst, expected), (thinking_worst, thinking_expected) = costs(), costs(reasoning="low")
    rows = ROWS["gate"]
    assert thinking_worst - worst >= 2 * rows * 1024 * LISTED.output / 1e6
    assert thinking_expected > expected


def priced(**changes: object) -> dict[str, float]:
    """Dollars at worst of rows of 20,000 bytes each, at $1 a million tokens in and nothing out."""
    models = {"candidates": [{"uri": "openai:big", "context_tokens": 100_000}]}
    case = use_case(models=models, **changes)
    return dict(worst_costs(case, {"openai:big": Price(input=1.0, output=0.0)}, None, asked(ROWS, text=20_000)))


def test_long_rows_are_estimated_at_their_length_and_not_at_a_usual_one() -> None:
    each = 20_000 / 1e6  # dollars a row
    assert priced()["prompt"] == pytest.approx(each * (2 * ROWS["gate"] + ROWS["test"]), rel=0.1)
    assert priced()["cache"] == pytest.approx(each * (ROWS["traffic"] + ROWS["test"]), rel=0.2)
    assert priced()["distill"] >= each * (ROWS["unlabelled"] + ROWS["gate"])


def test_what_the_context_surely_cuts_or_refuses_is_not_estimated() -> None:
    short = use_case(models={"candidates": [{"uri": "openai:big", "context_tokens": 1000}]})
    worst = worst_costs(short, {"openai:big": Price(input=1.0, output=0.0)}, None, asked(ROWS, text=20_000))
    assert worst["prompt"] < 0.2 * priced()["prompt"]


def test_requests_sent_twice_and_every_row_asked_again_belong_to_the_worst() -> None:
    plain, again = priced(), priced(traffic={"requests_per_month": 10, "retry_share": 0.5})
    assert again["prompt"] == pytest.approx(1.5 * plain["prompt"])


def test_what_an_endpoint_is_asked_before_it_stays_belongs_to_the_worst_of_self_host() -> None:
    own = {"uri": "hf://a/b", "base_url": "http://gpu:8000/v1", "venue": "self_host"}

    def worst(**hosting: object) -> dict[Stage, float]:
        case = use_case(models={"candidates": [own]}, hosting=hosting)
        return worst_costs(case, {"hf://a/b": Price(input=1.0, output=0.0)}, None, asked(ROWS, text=1_000))

    left, ended = worst(endpoint="process"), worst()
    assert left["self_host"] - ended["self_host"] >= ROWS_ASKED * TRIES * 1_000 / 1e6
    assert {stage: usd for stage, usd in left.items() if stage != "self_host"} == {
        stage: usd for stage, usd in ended.items() if stage != "self_host"
    }


def test_an_own_machine_is_paid_for_as_long_as_every_row_may_take() -> None:
    wanted = use_case(hosting={"usd_per_month_per_machine": 730.0})
    hours = worst_costs(wanted, {"openai:big": LISTED}, LISTED, asked(ROWS))["self_host"]
    rows = ROWS["gate"] + ROWS["test"]
    assert hours >= rows * 10 / wanted.traffic.concurrency / 3600 and hours == int(hours)
