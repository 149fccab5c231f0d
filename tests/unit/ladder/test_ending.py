"""How a command ends says the same in its fields and in its exit status."""

import pytest

from leastwise.ladder.ending import ClimbEnding
from leastwise.run_id import RunId


@pytest.mark.parametrize(
    ("outcome", "sure", "accepted", "status"),
    [
        ("rag", True, False, 0),
        ("rag", False, False, 4),
        ("reference", False, False, 4),
        ("rag", False, True, 0),
        ("none", True, False, 3),
        ("undecided", True, False, 4),
        ("error", True, False, 1),
    ],
)
def test_what_passed_by_an_estimate_exits_as_undecided_unless_it_is_accepted(
    outcome: str, sure: bool, accepted: bool, status: int
) -> None:
    ending = ClimbEnding(outcome, "", 0.0, 0.0, 0, 0, "yes", RunId("r"), sure=sure, accepted=accepted)
    assert ending.exit_status == status
    assert ending.fields()["sure"] == sure
