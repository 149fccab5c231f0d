"""Why an answer has no value at all where that lies in its form; what most wrong answers share is said once."""

import pytest

from leastwise.metrics.answer import Answer
from leastwise.metrics.shortfall import finding, shortfall_of
from leastwise.metrics.task_metric import metric_of
from leastwise.use_case.task import Classification, Extraction, FreeText, Task

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LABELS = Classification(instruction="?", labels=("yes", "no"))
RECORD = Extraction(kind="extraction", instruction="?", json_schema=SCHEMA)
TEXT = FreeText(kind="free_text", instruction="?", metric="token_f1")


@pytest.mark.parametrize(
    ("task", "text", "finish", "wanted"),
    [
        (LABELS, "", "length", "cut_off"),
        (LABELS, "no", "length", None),
        (LABELS, "maybe", "stop", None),
        (LABELS, "", "stop", None),
        (LABELS, "", "content_filter", "refused"),
        (LABELS, "```\nyes\n```", "stop", "wrapped"),
        (LABELS, '{"label": "yes"}', "stop", "wrapped"),
        (LABELS, '<tool_call>{"name": "f"}', "stop", "wrapped"),
        (RECORD, '{"city": "Bo', "length", "cut_off"),
        (RECORD, '```json\n{"city": "Bonn"}\n```', "stop", "wrapped"),
        (RECORD, '{"town": "Bonn"}', "stop", None),
        (TEXT, "", "length", "cut_off"),
        (TEXT, "I cannot help with that.", "content_filter", "refused"),
        (TEXT, "```code```", "stop", None),
    ],
)
def test_the_form_of_an_answer_says_why_it_has_no_value(task: Task, text: str, finish: str, wanted: str | None):
    expected = {"classification": "yes", "extraction": '{"city": "Bonn"}', "free_text": '["words"]'}[task.kind]
    answer = Answer(text, 1.0, 0.0, finish_reason=finish)
    assert shortfall_of(task, answer, metric_of(task)(text, expected)) == wanted


def test_only_what_at_least_half_of_the_wrong_answers_share_is_said():
    assert finding({"cut_off": 22}, 23, 25, 12).startswith("22 of 25 answers were cut off by the cap of 12 tokens")
    assert finding({"cut_off": 4, "refused": 8}, 14, 25, 12).startswith("8 of 25 answers were refused")
    assert finding({"cut_off": 4}, 20, 25, 12) == finding({}, 20, 25, 12) == finding({}, 0, 25, 12) == ""
