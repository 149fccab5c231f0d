"""What one answer scores: wrong is 0, right is 1, and nothing that was not scored becomes a score."""

import pytest

from leastwise.metrics import exact_label
from leastwise.use_case.task import Classification

TASK = Classification(instruction="Yes or no?", labels=("yes", "no"), decline_label="none")


@pytest.mark.parametrize(
    ("answer", "expected", "scores"),
    [
        ("yes", "yes", (1, 1, 0)),
        (" Yes.", "yes", (1, 0, 0)),
        ("no", "yes", (0, 1, 0)),
        ("", "yes", (0, 0, 0)),
        ("yes, surely", "yes", (0, 0, 0)),
        ("none", "yes", (0, 1, 1)),
        ("none", None, (0, 1, 1)),
        ("yes", None, (0, 1, 0)),
    ],
)
def test_a_label_is_right_but_for_case_and_edges_and_adheres_only_as_it_stands(answer, expected, scores):
    got = exact_label(TASK, answer, expected)
    assert (got.quality, got.adherence, got.declined) == scores
