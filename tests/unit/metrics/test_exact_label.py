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


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        ((" a", "b "), "a"),
        ((" a", "b "), "b \n"),
        (("cafe\u0301", "the"), "caf\u00e9"),
        (("caf\u00e9", "the"), "cafe\u0301"),
        (("\u0915\u093c", "x"), "\u0958"),
    ],
)
def test_a_label_is_in_the_format_however_its_characters_are_composed_and_whatever_blanks_are_around_it(
    labels: tuple[str, ...], answer: str
) -> None:
    score = exact_label(Classification(instruction="Say.", labels=labels), answer, labels[answer.strip() == "b"])
    assert (score.quality, score.adherence) == (1.0, 1.0)


@pytest.mark.parametrize("answer", ["A", "'a'", "a.", "\uff41", "a b"])
def test_a_label_written_otherwise_is_not_in_the_format(answer: str) -> None:
    assert exact_label(Classification(instruction="Say.", labels=("a", "b")), answer, "a").adherence == 0
