"""Each kind of task has its metric, its notion of the same answer, and what a model is taught to say."""

from typing import Any

import pytest

from leastwise.metrics.task_metric import agree, metric_of
from leastwise.use_case.task import Extraction, completion_of
from tests.tasks_of_each_kind import EXACT, LABELS, RECORD, TEXT


@pytest.mark.parametrize(
    ("task", "answer", "expected", "quality", "adherence", "declined"),
    [
        (LABELS, "yes", "yes", 1.0, 1.0, 0.0),
        (LABELS, "none", None, 0.0, 1.0, 1.0),
        (RECORD, '{"name": "Ann", "age": 3}', '{"name": "ann", "age": 3}', 1.0, 1.0, 0.0),
        (RECORD, '{"name": "Ann", "age": 4}', '{"name": "Ann", "age": 3}', 0.5, 1.0, 0.0),
        (RECORD, '{"name": "Ann", "age": "3"}', '{"name": "Ann", "age": 3}', 0.5, 0.0, 0.0),
        (RECORD, 'Sure: {"name": "Ann"}', '{"name": "Ann"}', 0.0, 0.0, 0.0),
        (TEXT, "the red house", '["red house", "a barn"]', 1.0, 1.0, 0.0),
        (TEXT, "a red barn", '["red house", "a barn"]', pytest.approx(2 / 3), 1.0, 0.0),
        (TEXT, "one two three four five", '["one"]', pytest.approx(1 / 3), 0.0, 0.0),
        (TEXT, "", '["one"]', 0.0, 0.0, 0.0),
        (TEXT, "Unknown.", None, 0.0, 1.0, 1.0),
        (EXACT, "A red house", '["red house"]', 1.0, 1.0, 0.0),
        (EXACT, "red barn", '["red house"]', 0.0, 1.0, 0.0),
    ],
)
def test_an_answer_is_scored_by_its_kind(
    task: Any, answer: str, expected: str | None, quality: float, adherence: float, declined: float
) -> None:
    got = metric_of(task)(answer, expected)
    assert (got.quality, got.adherence, got.declined) == (quality, adherence, declined)


def test_what_a_model_is_taught_to_say_is_the_first_right_text_and_the_record_itself() -> None:
    assert completion_of(TEXT, '["red house", "barn"]') == "red house"
    assert completion_of(RECORD, '{"name": "Ann"}') == '{"name": "Ann"}'
    assert completion_of(LABELS, "yes") == "yes"


@pytest.mark.parametrize(
    ("task", "samples", "share"),
    [
        (LABELS, ["yes", "Yes.", "no"], 1 / 3),
        (RECORD, ['{"name": "A", "age": 1}', '{"age":1,"name":"A"}'], 1.0),
        (RECORD, ["Sorry", "I cannot"], 0.0),
        (TEXT, ["The barn.", "barn", "house"], 1 / 3),
    ],
)
def test_repeated_answers_agree_where_they_say_the_same(task: Any, samples: list[str], share: float) -> None:
    assert agree(task, samples) == pytest.approx(share)


def test_a_schema_that_describes_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="must describe an object"):
        Extraction(kind="extraction", instruction="Extract.", json_schema={"type": "array"})
