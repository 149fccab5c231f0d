"""An expected answer means the same however a table holds it, and one the task does not allow is named by its row."""

import json
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.expected_answers import expected_texts
from tests.tasks_of_each_kind import RECORD, TEXT


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


def test_json_labels_are_written_without_escapes() -> None:
    assert json.loads(expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]) == ["Größe"]
    assert "ö" in expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]
