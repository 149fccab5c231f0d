"""Whether retrieval or generation failed follows from recall and quality with and without a gold document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leastwise.ladder.grounding import Grounding, Half, diagnosis, fault


def seen(recall: float, found: tuple[int, float], missed: tuple[int, float], bound: float = 0.5) -> Grounding:
    halves = [Half(n=n, quality=quality) for n, quality in (found, missed)]
    return Grounding(bound=bound, recall=recall, recall_rows=100, with_gold=halves[0], without_gold=halves[1])


@pytest.mark.parametrize(
    ("recall", "found", "missed", "expected"),
    [
        (0.9, (90, 0.8), (10, 0.1), "neither"),  # the bound is reached
        (0.3, (30, 0.4), (70, 0.6), "neither"),  # it is reached without the documents, whatever they would give
        (0.3, (30, 0.9), (70, 0.1), "retrieval"),  # perfect answers would come to 0.3 + 0.7 x 0.1 = 0.37
        (0.0, (0, 0.0), (100, 0.1), "retrieval"),  # nothing was found, so nothing is known of generation
        (0.9, (90, 0.2), (10, 0.1), "generation"),  # found, and answered badly
        (1.0, (100, 0.2), (0, 0.0), "generation"),  # nothing was missed
        (0.3, (30, 0.2), (70, 0.1), "both"),
        (0.8, (80, 0.55), (20, 0.0), "shared"),  # 0.44: either would do if the other were perfect
        (0.5, (50, 0.5), (50, 0.0), "shared"),  # a ceiling and a quality at the bound meet it
        (0.5, (0, 0.0), (0, 0.0), "shared"),  # nothing was answered: nobody is blamed
    ],
)
def test_the_fault_follows_from_the_ceiling_and_from_quality_where_gold_was_found(
    recall: float, found: tuple[int, float], missed: tuple[int, float], expected: str
) -> None:
    assert fault(seen(recall, found, missed)) == expected


@given(st.floats(0, 1), st.integers(0, 50), st.floats(0, 1), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_more_recall_never_makes_retrieval_the_fault(
    recall: float, n: int, found: float, m: int, missed: float, more: float
) -> None:
    better = recall + (1 - recall) * more
    if fault(seen(recall, (n, found), (m, missed))) not in ("retrieval", "both"):
        assert fault(seen(better, (n, found), (m, missed))) not in ("retrieval", "both")


def test_the_sentence_names_the_fault_and_every_figure_it_goes_by() -> None:
    words = diagnosis(seen(0.3, (9, 0.2), (16, 0.1)))
    assert words.startswith(
        "Retrieval and generation both failed: a gold document was before the model for 0.30 of 100 rows"
    )
    assert "would come to 0.37, 0.5 is wanted" in words and "0.20 (n=9)" in words and "0.10 (n=16)" in words
    assert "none of these was answered" in diagnosis(seen(0.0, (0, 0.0), (16, 0.1)))


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValidationError):
        seen(1.1, (1, 0.5), (1, 0.5))
