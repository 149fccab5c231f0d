"""However many questions a gate set is asked, their shares never add up to more than alpha."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.alpha_account import share_of_alpha

ALPHAS = st.floats(1e-6, 0.2)


@given(ALPHAS, st.integers(1, 3_000))
def test_the_shares_of_any_number_of_questions_sum_to_at_most_alpha(alpha: float, questions: int) -> None:
    assert math.fsum(share_of_alpha(alpha, number) for number in range(1, questions + 1)) <= alpha


def test_the_whole_of_alpha_is_given_out_in_the_end() -> None:
    shares = math.fsum(share_of_alpha(0.05, number) for number in range(1, 100_001))
    assert shares == pytest.approx(0.05, rel=1e-5)


@given(ALPHAS, st.integers(1, 10**6))
def test_every_question_gets_less_than_the_one_before_and_more_than_nothing(alpha: float, number: int) -> None:
    assert 0 < share_of_alpha(alpha, number + 1) < share_of_alpha(alpha, number) < alpha


@pytest.mark.parametrize("number", [0, -1])
def test_questions_are_counted_from_one(number: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        share_of_alpha(0.05, number)
