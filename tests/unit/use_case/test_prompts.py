"""The system prompt says the demanded format; a trained candidate's leaves it to the weights."""

import pytest

from leastwise.use_case.prompts import short_prompt, system_prompt
from leastwise.use_case.task import Classification, Extraction, FreeText

TASK = Classification(instruction="Name the tactic.", labels=("impact", "discovery"), decline_label="none")
SCHEMA = {"type": "object", "properties": {"zip": {"type": "string"}, "city": {"type": "string"}}}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (TASK, "exactly one of: impact, discovery. If the text fits none of them, answer none."),
        (
            Extraction(kind="extraction", instruction="Extract.", json_schema=SCHEMA),
            '"properties":{"zip":{"type":"string"},"city"',
        ),
        (
            FreeText(kind="free_text", instruction="Answer.", max_words=7, decline_label="unknown"),
            "at most 7 words. If it cannot be answered, answer unknown.",
        ),
    ],
)
def test_the_demanded_format_is_said_in_the_use_cases_own_order(task: object, words: str) -> None:
    assert words in system_prompt(task)  # type: ignore[arg-type]
    assert words not in short_prompt(task)  # type: ignore[arg-type]
