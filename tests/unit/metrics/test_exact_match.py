"""Free answers are compared by their words: all of them, or as many as overlap (token_f1)."""

import pytest

from leastwise.metrics import exact_match, token_f1


@pytest.mark.parametrize(
    ("answer", "expected", "match", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("tower", ["Eiffel Tower", "a tower"], 1, 1),
        ("tower of Paris", ["eiffel tower"], 0, 2 / 5),
        ("", ["x"], 0, 0),
        ("the", [""], 0, 0),
        ("x x", ["x"], 0, 2 / 3),
    ],
)
def test_free_answers_are_compared_by_their_words(answer, expected, match, f1):
    assert exact_match(answer, expected) == match
    assert token_f1(answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize("metric", [exact_match, token_f1])
def test_a_row_without_an_expected_answer_is_not_scored_0(metric):
    with pytest.raises(ValueError, match="no expected answer"):
        metric("x", [])
