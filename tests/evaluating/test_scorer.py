"""Each kind of task has its metric, and an expected answer means the same however a table holds it."""

import json
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.evaluating.scorer import ExactScorer
from leastwise.metrics.answer import Answer
from leastwise.metrics.task_metric import agree, metric_of
from leastwise.rows.expected_answers import expected_texts
from leastwise.use_case.task import Classification, Extraction, FreeText, completion_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
LABELS = Classification(instruction="Yes or no?", labels=("yes", "no"), decline_label="none")
RECORD = Extraction(kind="extraction", instruction="Extract.", json_schema=SCHEMA)
TEXT = FreeText(kind="free_text", instruction="Answer.", metric="token_f1", max_words=4, decline_label="unknown")
EXACT = TEXT.model_copy(update={"metric": "exact_match"})


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


def test_a_lost_answer_has_no_score() -> None:
    rows = pd.DataFrame({"label": ["yes", "yes"]})
    lost, kept = ExactScorer(LABELS).score(rows, [Answer(None, None, 0.0, error="cut"), Answer("", 1.0, 0.0)])
    assert lost is None and kept is not None and kept.quality == 0


def test_records_and_texts_are_read_alike_as_objects_and_as_json() -> None:
    records = pd.Series([{"name": "Ann", "age": None}, '{"name":"Ann"}'])
    assert len(set(expected_texts(RECORD, records, "data.gate"))) == 1
    texts = pd.Series(["barn", ["barn"], '["barn"]'], dtype=object)
    assert set(expected_texts(TEXT, texts, "data.gate")) == {'["barn"]'}
    assert expected_texts(TEXT, pd.Series(["[sic] barn"]), "data.gate") == ['["[sic] barn"]']
    again = expected_texts(TEXT, pd.Series(expected_texts(TEXT, pd.Series([["a", "b"]]), "x")), "x")
    assert again == ['["a", "b"]']


@pytest.mark.parametrize(
    ("task", "labels", "words"),
    [
        (RECORD, [{"name": "Ann"}, {"age": 3}], "row 2.*does not keep to task.json_schema"),
        (RECORD, ["name: Ann"], "row 1.*json_schema"),
        (TEXT, ["barn", []], "row 2.*neither a text nor a list"),
        (TEXT, [["barn", ""]], "row 1.*neither"),
    ],
)
def test_an_expected_answer_the_task_does_not_allow_is_named_by_row(task: Any, labels: list[Any], words: str) -> None:
    with pytest.raises(BadInput, match=r"data\.gate: " + words):
        expected_texts(task, pd.Series(labels, dtype=object), "data.gate")


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


def test_json_labels_are_written_without_escapes() -> None:
    assert json.loads(expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]) == ["Größe"]
    assert "ö" in expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]
