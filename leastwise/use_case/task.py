"""What one request asks for, as a tagged union: a label, a record, or free text.

It scores nothing (see `leastwise.metrics`) and renders nothing (see `leastwise.use_case.prompts`). An expected answer
is kept as one string whatever the kind: the label, the record as JSON, or a JSON list of texts any of which is right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from leastwise.part import Part
from leastwise.text_forms import one_form

MOST_NESTED = 100  # a record nested deeper is none: checking and comparing would run out of stack


class _TaskPart(Part):
    instruction: str = Field(min_length=1, max_length=4000, description="What the model is told to do, in words.")
    decline_label: str | None = Field(
        None, description="The answer that means 'out of scope'; needed by the requirement ood_decline."
    )
    stable: bool = Field(True, description="False if labels or rules change often: training then never pays.")
    domain_is_public: bool = Field(True, description="False if no public text resembles the domain (Level 4 may help).")

    @property
    def answers(self) -> tuple[str, ...] | None:
        """Every answer in the demanded format where they can be listed; None where they cannot."""
        return None

    @property
    def can_be_constrained(self) -> bool:
        """Whether a provider can force an answer into the demanded format."""
        return True


class Classification(_TaskPart):
    """One label out of a list. Quality: share of right labels."""

    kind: Literal["classification"] = Field("classification", description="One label out of a list.")
    labels: tuple[str, ...] = Field(min_length=2, max_length=200, description="The answers that are allowed.")

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Self:
        if self.decline_label in self.labels:
            raise ValueError("decline_label: must not be one of labels; name an extra answer such as 'none'")
        forms: dict[str, str] = {}
        for label in self.answers:
            form = one_form(label)
            if not form:
                raise ValueError(f"labels: {label!r} shows nothing; name every label with something to see")
            if label in forms.values():
                raise ValueError(f"labels: {label!r} is listed twice; list every label once")
            if form in forms:
                raise ValueError(
                    f"labels: {forms[form]!r} and {label!r} cannot be told apart: they differ in blanks or in how "
                    "Unicode writes the same characters; keep one, or name them apart"
                )
            forms[form] = label
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels, and the way to decline where there is one."""
        return self.labels + ((self.decline_label,) if self.decline_label else ())


class Extraction(_TaskPart):
    """A record by a JSON schema.

    Quality: F1 over its (field, value) pairs; adherence: the share that keeps to the schema.
    """

    kind: Literal["extraction"] = Field(description="A record by a JSON schema.")
    json_schema: dict[str, object] = Field(description="JSON Schema (draft 2020-12) of the record, an object.")

    @model_validator(mode="after")
    def _is_a_record(self) -> Self:
        if self.json_schema.get("type") != "object" or not isinstance(self.json_schema.get("properties"), dict):
            raise ValueError("json_schema: must describe an object; give type: object and properties")
        if fault := next(_not_json(self.json_schema, "json_schema", 0), ""):
            raise ValueError(f"{fault}; correct the schema (in YAML: put it in quotes)")
        if self.decline_label:
            raise ValueError("decline_label: a record cannot be one word; describe a way to decline in json_schema")
        return self


class FreeText(_TaskPart):
    """Free text: answers to questions, summaries, replies.

    Quality by `metric`, against expected answers or by a judge.
    """

    kind: Literal["free_text"] = Field(description="Free text: answers to questions, summaries, replies.")
    metric: Literal["token_f1", "exact_match", "judge"] = Field(
        "token_f1",
        description="token_f1 and exact_match compare words with expected answers; judge grades by a rubric.",
    )
    max_words: int = Field(200, ge=1, le=10_000, description="A longer answer, or an empty one, is not in the format.")

    @property
    def can_be_constrained(self) -> bool:
        """There is no format to force it into."""
        return False


def _not_json(value: object, place: str, depth: int) -> Iterator[str]:
    """What of a schema JSON cannot hold, with its place: YAML reads `yes:` as a truth value, 2026-01-01 as a date."""
    if depth > MOST_NESTED:
        yield f"{place[:80]}…: is nested more than {MOST_NESTED} deep"
    elif isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                yield f"{place}: the name {name!r} is no text"
            yield from _not_json(each, f"{place}.{name}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for at, each in enumerate(value):
            yield from _not_json(each, f"{place}[{at}]", depth + 1)
    elif not isinstance(value, (str, int, float, type(None))) or (isinstance(value, float) and not isfinite(value)):
        yield f"{place}: {value!r} is no value of JSON"


def nests_at_most(value: object, depth: int) -> bool:
    """Whether records and lists are nested at most so deep; a value that holds itself is not."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            each
            for held in level
            if isinstance(held, (dict, list))
            for each in (held.values() if isinstance(held, dict) else held)
        ]
        if not level:
            return True
    return False


def _kind(value: object) -> str:
    """The tag of a task as written in YAML or as built; `classification` where none is said."""
    if isinstance(value, dict):
        return str(value.get("kind", "classification"))
    return value.kind if isinstance(value, Classification | Extraction | FreeText) else "classification"


Task = Annotated[
    Annotated[Classification, Tag("classification")]
    | Annotated[Extraction, Tag("extraction")]
    | Annotated[FreeText, Tag("free_text")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind: is none of classification, extraction, free_text; write one of them",
    ),
]


def completion_of(task: Task, label: str) -> str:
    """What a model should say where `label` is expected: of several right texts the first."""
    return str(json.loads(label)[0]) if task.kind == "free_text" else label
