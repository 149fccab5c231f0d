"""What a stage that ended on another machine does to its climb, told by the state a real flow run ends in."""

import pytest
from prefect import flow

from flows.steps.stages import require_completed
from leastwise.stores.caps import BudgetExceeded


@flow
def ends(how: str) -> str:
    if how == "cap":
        raise BudgetExceeded("budget_usd", 1.0, 0.9, 0.05, 0.2)
    if how == "defect":
        raise ValueError("weights are torn")
    return "done"


def test_a_cap_reached_on_a_pool_is_a_budget_outcome_with_its_remedy() -> None:
    with pytest.raises(BudgetExceeded, match=r"^budget_usd of \$1.0+ would be passed.*raise budget_usd above"):
        require_completed("fine_tune", ends("cap", return_state=True))


def test_any_other_end_on_a_pool_is_an_error_and_no_budget() -> None:
    with pytest.raises(RuntimeError, match=r"the fine_tune stage ended as Failed.*weights are torn") as ended:
        require_completed("fine_tune", ends("defect", return_state=True))
    assert not isinstance(ended.value, BudgetExceeded)
    with pytest.raises(RuntimeError, match="unknown"):
        require_completed("fine_tune", None)


def test_a_completed_stage_goes_on() -> None:
    require_completed("fine_tune", ends("well", return_state=True))
