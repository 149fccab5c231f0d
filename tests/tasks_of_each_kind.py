"""A task of each kind, small."""

from typing import Any

from leastwise.use_case.task import Classification, Extraction, FreeText

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
