"""An expected answer means the same however a table holds it, and one the task does not allow is named by its row."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.expected_answers import expected_texts
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase
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


def case_of(task: Any, answers: list[Any], folder: Path, **requirements: Any) -> UseCase:
    lines = [json.dumps({"text": f"row {at}", "label": answer}) for at, answer in enumerate(answers)]
    (folder / "gate.jsonl").write_text("\n".join(lines))
    return UseCase.model_validate(
        {
            "name": "room",
            "task": task,
            "data": {"gate": str(folder / "gate.jsonl")},
            "requirements": requirements or {"quality": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 1000, "output_tokens": 12},
            "models": {"candidates": [{"uri": "openai:toy"}]},
            "allow_no_test": True,
        }
    )


LONG = "the claim of a third party whose car was hit by hail while it stood in a street of another town, on a Sunday"
PLACES = RECORD.model_dump() | {
    "json_schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
}
EXACT = {"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"}


@pytest.mark.parametrize(
    ("task", "long", "short"),
    [
        ({"instruction": "Which?", "labels": [LONG, "other"]}, LONG, "other"),
        (PLACES, {"name": LONG}, {"name": "Ann"}),
        (EXACT, LONG, "barn"),
        (EXACT, [LONG, LONG + " again"], [LONG, "barn"]),
        ({"instruction": "Which?", "labels": ["理赔" * 20, "其他"]}, "理赔" * 20, "其他"),
    ],
)
def test_answers_that_the_cap_cuts_off_are_found_before_they_are_paid_for(
    task: Any, long: Any, short: Any, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"traffic\.output_tokens: 12 tokens cut off .* of 4 of 10 rows.*first: row 2"):
        Tables(case_of(task, [short, *[long] * 4, *[short] * 5], tmp_path)).check()
    Tables(case_of(task, [short, *[long] * 3, *[short] * 6], tmp_path)).check()  # 0.7 can be reached without them


def test_a_text_of_which_a_part_counts_may_be_cut_off(tmp_path: Path) -> None:
    Tables(case_of(EXACT | {"metric": "token_f1"}, [LONG] * 4, tmp_path)).check()
    Tables(case_of(EXACT, [LONG] * 4, tmp_path, usd_per_1k_requests={"bound": 1, "margin": 0.1})).check()


def test_json_labels_are_written_without_escapes() -> None:
    assert json.loads(expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]) == ["Größe"]
    assert "ö" in expected_texts(TEXT, pd.Series(["Größe"]), "x")[0]
