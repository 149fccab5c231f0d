"""What kind of task the expected answers make: labels, records of a drafted schema, or free text; and what they leak.

It drafts; a person reads it. Nothing is asked of a model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leastwise.errors import BadInput
from leastwise.rows.preparing.settings import Kind
from leastwise.rows.sources.plain import as_value
from leastwise.stores.tables.table_values import named_rows

MOST_LABELS, MOST_LABEL_CHARACTERS, LEAST_ROWS_A_LABEL = 200, 100, 3
MOST_ENUM, LEAST_REPEATS = 20, 5
LEAKS, MORE_THAN_OTHERS, LEAST_TEXTS = 0.5, 0.4, 20
LONG_ANSWER = 40  # characters of a free text that stands in its input by no chance
NUMBERS = {int: "integer", float: "number", bool: "boolean", str: "string"}


class Task(NamedTuple):
    """What is asked for: the kind, its labels or its schema."""

    kind: Kind
    labels: tuple[str, ...] = ()
    schema: Mapping[str, object] | None = None


def task_of(labels: Sequence[str], kind: Kind = "") -> Task:
    """The task that these expected answers make; BadInput where they do not make the kind that was asked for."""
    if len(labels) > 1 and len(set(labels)) == 1:
        raise BadInput(
            f"all {len(labels):,} rows have the same expected answer ({labels[0]!r:.80}): there is nothing to decide; "
            "name another field by --label-column, or add rows with other answers"
        )
    records = [_record(label) for label in labels]
    no_record = [at for at, record in enumerate(records, 1) if record is None]
    counts = Counter(labels)
    if kind == "extraction" and no_record:
        raise BadInput(
            f"kind=extraction (--changes): {named_rows(no_record)} of the labelled: the answer is no JSON object"
        )
    if kind == "extraction" or (not kind and labels and not no_record):
        return Task("extraction", schema=schema_of([record for record in records if record is not None]))
    lists = any(label.startswith("[") and isinstance(as_value(label), list) for label in counts)
    few = not lists and 2 <= len(counts) <= MOST_LABELS and max(map(len, counts)) <= MOST_LABEL_CHARACTERS
    if kind == "classification" and not few:
        raise BadInput(
            f"kind=classification (--changes): {len(counts):,} different answers (2 to {MOST_LABELS} of at most "
            f"{MOST_LABEL_CHARACTERS} characters are labels); take another column, or kind=free_text"
        )
    if kind == "classification" or (not kind and few and len(labels) >= LEAST_ROWS_A_LABEL * len(counts)):
        return Task("classification", tuple(sorted(counts)))
    return Task("free_text")


def _record(label: str) -> dict[str, object] | None:
    if not label.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(label)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def schema_of(records: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """A JSON schema that all of these records keep to: types seen, fields that all have, values where they are few."""
    names = sorted({name for record in records for name in record})
    properties = {name: _schema([record[name] for record in records if name in record]) for name in names}
    required = [name for name in names if all(name in record for record in records)]
    schema: dict[str, object] = {"type": "object", "properties": properties}
    return schema | ({"required": required} if required else {}) | {"additionalProperties": False}


def _schema(values: Sequence[object]) -> dict[str, object]:
    held = [value for value in values if value is not None]
    kinds = {type(value) for value in held}
    if held and kinds == {dict}:
        schema = schema_of([value for value in held if isinstance(value, dict)])
        return schema | ({"type": ["object", "null"]} if len(held) < len(values) else {})
    if held and kinds == {list}:
        items = [each for value in held if isinstance(value, list) for each in value]
        own: dict[str, object] = {"type": "array"} | ({"items": _schema(items)} if items else {})
        return own | ({"type": ["array", "null"]} if len(held) < len(values) else {})
    if not kinds <= set(NUMBERS):
        return {}
    names = sorted({NUMBERS[kind] for kind in kinds})
    names = [name for name in names if not (name == "integer" and "number" in names)]
    names += ["null"] if len(held) < len(values) else []
    different = {str(value) for value in held}
    if (
        kinds == {str}
        and len(names) == 1
        and len(different) <= MOST_ENUM
        and len(held) >= LEAST_REPEATS * len(different)
    ):
        return {"enum": sorted(different)}
    return {"type": names[0] if len(names) == 1 else names}


def check_leak(task: Task, texts: Sequence[str], labels: Sequence[str], field: str) -> None:
    """BadInput where the texts hold their expected answers, beyond what texts hold of others' answers.

    Of records the values stand in the text by nature, so only a whole record counts; of free text only a long answer.
    """
    if len(texts) < LEAST_TEXTS:
        return
    spread = [labels[(at * 7 + len(labels) // 2) % len(labels)] for at in range(len(labels))]
    own = [_holds(task, text, label) for text, label in zip(texts, labels, strict=True)]
    others = [
        _holds(task, text, other) for text, label, other in zip(texts, labels, spread, strict=True) if label != other
    ]
    share, by_chance = sum(own) / len(own), sum(others) / max(len(others), 1)
    if share >= LEAKS and share - by_chance >= MORE_THAN_OTHERS:
        first = own.index(True)
        raise BadInput(
            f"{field}: {sum(own):,} of {len(own):,} texts hold their own expected answer (first: {labels[first]!r:.60} "
            f"in {texts[first]!r:.100}), so nothing would be measured; name another field by --text-column, or say "
            "label_in_text=yes in --changes where requests in production hold it too"
        )


def _holds(task: Task, text: str, label: str) -> bool:
    if task.kind == "classification":
        return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text, re.IGNORECASE) is not None
    if task.kind == "free_text" and len(label) < LONG_ANSWER:
        return False
    return label in text


def rare_labels(labels: Sequence[str], groups: Sequence[str], least: int) -> dict[str, int]:
    """Labels of fewer groups than there are splits, each with how many it lacks."""
    held: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        held.setdefault(label, set()).add(group)
    return {label: least - len(names) for label, names in sorted(held.items()) if len(names) < least}


def check_classes(labels: Sequence[str], groups: Sequence[str], least: int) -> None:
    """BadInput for classes with fewer groups than there are splits, each with what it lacks."""
    if few := rare_labels(labels, groups, least):
        said = ", ".join(f"{label!r} (add {missing})" for label, missing in few.items())
        raise BadInput(
            f"{len(few)} labels have too few rows (those that say nearly the same count once) to be in each of {least} "
            f"splits: {said}; or say --changes rare=drop to leave these rows out, or rare=other to make them one label"
        )
