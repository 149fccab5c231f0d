"""Whether an answer is JSON that keeps to a schema, by the library jsonschema. It fixes nothing up."""

from __future__ import annotations

import json
from collections.abc import Callable

from leastwise.errors import BadInput

DEEPEST = 100  # levels of nesting; what is compared and validated level by level would run out of stack


def parsed(answer: str) -> object | None:
    """The JSON of an answer, or None where it is none; NaN, Infinity and what is nested too deeply are no JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value: object = json.loads(answer, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if _is_shallow(value) else None


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _items(each)]
        if not level:
            return True
    return False


def _items(value: dict[str, object] | list[object]) -> list[object]:
    return list(value.values()) if isinstance(value, dict) else value


def adherence_of(schema: dict[str, object]) -> Callable[[str], float]:
    """A function that scores an answer 1 where it is JSON of this schema (draft 2020-12), else 0.

    BadInput where the schema is none, or refers outside itself: nothing is fetched.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadInput(f"json_schema: {error.message} at {error.json_path}; correct the schema") from None
    outside = [ref for ref in _references(schema) if not ref.startswith("#")]
    if outside:
        raise BadInput(f"json_schema: refers to {outside[0]}, outside itself; put that definition under $defs")
    validator = Draft202012Validator(schema)

    def adherence(answer: str) -> float:
        value = parsed(answer)
        return float(value is not None and validator.is_valid(value))

    return adherence


def _references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [str(schema["$ref"])] if isinstance(schema.get("$ref"), str) else []
        return own + [ref for each in schema.values() for ref in _references(each)]
    return [ref for each in schema for ref in _references(each)] if isinstance(schema, list) else []
