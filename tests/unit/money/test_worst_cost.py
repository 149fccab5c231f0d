"""What a stage may cost at worst grows with all that may be asked."""

import pytest

from leastwise.money.expected_cost import Facts, expected_costs
from leastwise.money.worst_cost import worst_costs
from leastwise.use_case import UseCase
from tests.unit.use_cases import LISTED, PLENTY, use_case

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
        worst_costs(use_case(**asks, guard={"offered": is_offered, "dev_rows": 300}), prices, LISTED, rows)
        for is_offered in (False, True)
    )
    again = rows["gate"] + rows["out_of_scope"] + rows["shifted"] + 600
    a_call = without["rag"] / 2 / (again - 600)
    assert offered["rag"] - without["rag"] == pytest.approx(a_call * again)
    assert offered["prompt"] == without["prompt"] and offered["fine_tune"] > without["fine_tune"]


def test_what_a_model_and_a_judge_may_think_is_in_the_worst_case_and_the_expectation() -> None:
    def costs(**thinks: object) -> tuple[float, float]:
        fields = use_case(requirements={"quality": {"bound": 0.8, "margin": 0.1}}).model_dump(mode="json") | {
            "task": {"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"},
            "models": {"candidates": [{"uri": "openai:big", **thinks}]},
            "judge": {"models": [{"uri": "openai:critic", **thinks}], "criteria": "It helps."},
        }
        case = UseCase.model_validate(fields)
        facts = Facts(prices={"openai:big": LISTED}, judge_price=LISTED, rows=ROWS, alpha_pass=0.05, alpha_fail=0.05)
        worst = worst_costs(case, {"openai:big": LISTED}, None, ROWS, LISTED)["prompt"]
        return worst, expected_costs(case, facts)["prompt"].usd

    (worst, expected), (thinking_worst, thinking_expected) = costs(), costs(reasoning="low")
    asked = ROWS["gate"]
    assert thinking_worst - worst >= 2 * asked * 1024 * LISTED.output / 1e6
    assert thinking_expected > expected
