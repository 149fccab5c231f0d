"""The threshold of a cascade: it holds quality at the fewest escalations, whatever the confidences look like."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leastwise.evidence.cascade_threshold import choose_threshold

ROWS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


def came_to(below: float, rows: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Quality and escalated share of a cascade at this threshold."""
    up = [sure < below or below == 1.0 for sure, _, _ in rows]
    scores = [then if escalates else first for escalates, (_, first, then) in zip(up, rows, strict=True)]
    return float(np.mean(scores)), float(np.mean(up))


@given(ROWS, st.floats(0, 1))
@example([(0.0, 0.0, 0.5), (1.0, 0.5, 0.0)], 1.0)
@example([(0.0, 0.0, 0.5), (5e-324, 0.5, 0.0)], 1.0)
@example([(1.0, 0.0, 0.0), (0.9999999999999999, 0.0, 0.5)], 1.0)
@example([(0.5, 0.0, 0.5), (0.5000000000000001, 0.5, 0.0)], 1.0)
def test_it_says_what_it_comes_to_and_no_lower_threshold_would_do(
    rows: list[tuple[float, float, float]], wanted: float
) -> None:
    chosen = choose_threshold(*(list(column) for column in zip(*rows, strict=True)), wanted)  # type: ignore[arg-type]
    quality, share = came_to(chosen.below, rows)
    assert chosen.quality == pytest.approx(quality) and chosen.escalated_share == pytest.approx(share)
    levels = sorted({sure for sure, _, _ in rows})
    between = [(low + high) / 2 for low, high in pairwise(levels)]  # a level of 1.0 itself escalates everything
    tried = [came_to(below, rows) for below in (0.0, *levels, *between, 1.0)]
    if any(got >= wanted for got, _ in tried):
        assert quality >= wanted - 1e-9
        assert share <= min(up for got, up in tried if got >= wanted) + 1e-9
    else:
        assert quality == pytest.approx(max(got for got, _ in tried))


def test_a_first_that_is_good_enough_escalates_nothing_and_a_hopeless_one_everything() -> None:
    assert choose_threshold([0.2, 0.9], [1, 1], [1, 1], 0.9).escalated_share == 0
    assert choose_threshold([0.2, 0.9], [0, 0], [1, 1], 0.9).below == 1.0


def test_rows_of_one_confidence_escalate_together() -> None:
    chosen = choose_threshold([0.5, 0.5, 0.9], [0, 1, 1], [1, 1, 1], 1.0)
    assert chosen.escalated_share == pytest.approx(2 / 3) and 0.5 < chosen.below < 0.9


def test_columns_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="one of each a row"):
        choose_threshold([0.5], [1, 1], [1], 0.5)
    with pytest.raises(ValueError, match="at least one"):
        choose_threshold([], [], [], 0.5)
