"""A budget is its ledger as one run sees it: what that run and its use case spent, and what the caps still allow."""

from pathlib import Path

import pytest

from leastwise.stores.budget import Budget
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger_file import LedgerFile
from leastwise.use_case import UseCase

USE_CASE = UseCase.model_validate(
    {
        "name": "triage",
        "task": {"instruction": "Answer.", "labels": ["yes", "no"]},
        "data": {"gate": "gate.csv"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.06}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:m"}]},
        "allow_no_test": True,
        "budget_usd": 1.0,
        "budget_usd_per_month": 1.5,
    }
)


def test_a_run_sees_its_own_spending_and_the_month_of_its_use_case(tmp_path: Path) -> None:
    with LedgerFile(tmp_path / "ledger.db") as ledger:
        one, other = Budget(ledger, "one", USE_CASE), Budget(ledger, "other", USE_CASE)
        one.meter("prompt").pay(0.1)
        one.meter("prompt", "judge").pay(0.3)
        one.meter("retrain", "data").pay(0.2)
        other.meter("prompt").pay(0.4)
        assert (one.usd_spent, other.usd_spent) == (pytest.approx(0.6), pytest.approx(0.4))
        assert one.usd_spent_this_month == other.usd_spent_this_month == pytest.approx(1.0)
        assert one.spent_by("prompt") == pytest.approx(0.4)
        assert one.spent_by_purpose() == {"judge": 0.3, "data": 0.2, "evaluation": 0.1}
        assert one.spent_by_purpose_of("prompt") == {"judge": 0.3, "evaluation": 0.1}
        assert one.calls == 2, "labels that people were paid for are no calls"


def test_the_caps_are_those_of_the_use_case(tmp_path: Path) -> None:
    with LedgerFile(tmp_path / "ledger.db") as ledger:
        one, other = Budget(ledger, "one", USE_CASE), Budget(ledger, "other", USE_CASE)
        one.meter("prompt").pay(0.9)
        with pytest.raises(BudgetExceeded, match=r"budget_usd of \$1\.0"):
            one.meter("rag").pay(0.2)
        with pytest.raises(BudgetExceeded, match="budget_usd_per_month"):
            other.meter("prompt").pay(0.7)
