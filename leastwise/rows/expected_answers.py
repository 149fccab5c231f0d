"""Expected answers as one string each, whatever the kind of task; each is checked. It scores nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np

from leastwise.errors import BadInput
from leastwise.metrics.schema_adherence import adherence_of, parsed
from leastwise.use_case.task import Extraction, Task


def expected_texts(task: Task, labels: Iterable[object], source: str) -> list[str]:
    """Every expected answer as one string; BadInput names the row whose answer the task does not allow.

    Extraction: a record or its JSON, which must keep to the schema. Free text: one text, or a list (or its JSON) any of
    which is right.
    """
    if task.kind == "classification":
        return [str(label) for label in labels]
    write = _written_record(task) if task.kind == "extraction" else _written_texts
    written = []
    for row, label in enumerate(labels, 1):
        try:
            written.append(write(label))
        except ValueError as error:
            raise BadInput(f"{source}: row {row}: {error}; correct the row") from None
    return written


def _written_record(task: Extraction) -> Callable[[object], str]:
    adheres = adherence_of(task.json_schema)

    def write(label: object) -> str:
        record = parsed(label) if isinstance(label, str) else _without_absent(label)
        text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "))
        if not adheres(text):
            raise ValueError(f"the expected record {text[:80]} does not keep to task.json_schema")
        return text

    return write


def _without_absent(value: object) -> object:
    """A record as a table gives it back, without the fields that only other rows have (they come back as null)."""
    if isinstance(value, dict):
        return {name: _without_absent(each) for name, each in value.items() if each is not None}
    if isinstance(value, (list, np.ndarray)):
        return [_without_absent(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _written_texts(label: object) -> str:
    texts = _listed(label)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"the expected answer {str(label)[:80]!r} is neither a text nor a list of texts")
    return json.dumps(texts, ensure_ascii=False)


def _listed(label: object) -> list[object]:
    """One text, several, or several as JSON (the only way a CSV can hold them) as a list."""
    if not isinstance(label, str):
        return list(label) if isinstance(label, Iterable) else [label]
    several = parsed(label) if label.lstrip().startswith("[") else None
    return several if isinstance(several, list) and all(isinstance(text, str) for text in several) else [label]
