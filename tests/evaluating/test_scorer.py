"""What scores answers by a formula."""

import pandas as pd

from leastwise.evaluating.scorer import ExactScorer
from leastwise.metrics.answer import Answer
from tests.tasks_of_each_kind import LABELS


def test_a_lost_answer_has_no_score() -> None:
    rows = pd.DataFrame({"label": ["yes", "yes"]})
    lost, kept = ExactScorer(LABELS).score(rows, [Answer(None, None, 0.0, error="cut"), Answer("", 1.0, 0.0)])
    assert lost is None and kept is not None and kept.quality == 0
