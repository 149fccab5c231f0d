"""What a stage may cost at worst grows with all that may be asked."""

import pytest

from leastwise.money.worst_cost import worst_costs
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
    assert offered["rag"] - without["rag"] == pytest.approx(a_call * (judged + 600))
    assert offered["prompt"] == without["prompt"] and offered["fine_tune"] > without["fine_tune"]
