"""What is written beside a verdict: what sharing alpha takes, and how many more examples would decide."""

import pytest

from leastwise.ladder.gate import judge
from leastwise.record import reports
from leastwise.use_case.requirements import Requirement
from tests.workspaces import evaluation_of, quality

QUALITY = Requirement(name="quality", bound=0.8, margin=0.2)


def test_the_gate_table_says_what_sharing_alpha_takes_in_examples() -> None:
    shared = evaluation_of("rag", quality(0.5, 0.9, 100))
    table = reports.gate_table(shared, judge(shared, (QUALITY,)), (QUALITY,), 0.05)
    assert "alpha 0.05" in table and "takes about 1.5 times the examples" in table
    whole = shared.measurements["quality"].model_copy(update={"alpha_pass": 0.05})
    alone = shared.model_copy(update={"measurements": {"quality": whole}})
    assert "times the examples" not in reports.gate_table(alone, judge(alone, (QUALITY,)), (QUALITY,), 0.05)


@pytest.mark.parametrize(("lower", "upper", "says_more"), [(0.4, 0.9, True), (0.5, 0.9, False), (0.65, 0.9, False)])
def test_only_what_is_undecided_and_not_between_floor_and_bound_says_how_many_more_examples_would_decide_it(
    lower: float, upper: float, says_more: bool
) -> None:
    measured = evaluation_of("prompt", quality(lower, upper, 40))
    table = reports.gate_table(measured, judge(measured, (QUALITY,)), (QUALITY,), 0.05)
    assert ("more examples would decide quality" in table) is says_more
