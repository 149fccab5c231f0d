"""Whether an answer is JSON that keeps to a schema, by the library jsonschema. It fixes nothing up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.use_case.task import MOST_NESTED, nests_at_most

if TYPE_CHECKING:
    from referencing._core import Resolver

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")  # of the same value
_NO_SCHEMA = ("const", "enum", "default", "examples")
_OF_SCHEMAS = ("properties", "$defs", "patternProperties", "dependentSchemas")  # their keys are names of the record's


def parsed(answer: str) -> object | None:
    """The JSON of an answer, or None where it is none; NaN and Infinity are no JSON, nor is what nests too deep."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value: object = json.loads(answer, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if nests_at_most(value, MOST_NESTED) else None


def adherence_of(schema: dict[str, object]) -> Callable[[str], float]:
    """A function that scores an answer 1 where it is JSON of this schema (draft 2020-12), else 0.

    BadInput where the schema is none, or refers to what is not in it: nothing is fetched.
    """
    from jsonschema import Draft202012Validator

    check_schema(schema)
    validator = Draft202012Validator(schema)

    def adherence(answer: str) -> float:
        value = parsed(answer)
        try:
            return float(value is not None and validator.is_valid(value))
        except (RecursionError, OverflowError):  # a number no float holds, against multipleOf
            return 0.0

    return adherence


def check_schema(schema: dict[str, object]) -> None:
    """BadInput, with its place, for what is no schema, a reference that leads nowhere or back to itself."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not nests_at_most(schema, MOST_NESTED):
        raise BadInput(f"json_schema: is nested more than {MOST_NESTED} deep; make it flatter")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadInput(f"json_schema: {error.message} at {error.json_path}; correct the schema") from None
    except (TypeError, RecursionError) as error:
        raise BadInput(f"json_schema: is no JSON schema ({error}); correct the schema") from None
    for place, reference, resolver in _references(schema):
        _followed(place, reference, resolver, ())


def _references(schema: dict[str, object]) -> Iterator[tuple[str, str, Resolver[object]]]:
    """Every reference with its place and what resolves it."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    root = DRAFT202012.create_resource(schema)
    base = root.id() or ""
    registry: Registry[object] = Registry().with_resource(base, root)
    waiting: list[tuple[str, object, Resolver[object]]] = [("$", schema, registry.resolver(base))]
    while waiting:
        place, each, resolver = waiting.pop()
        if isinstance(each, dict):
            if place != "$" and isinstance(each.get("$id"), str):
                resolver = resolver.in_subresource(DRAFT202012.create_resource(each))
            if isinstance(reference := each.get("$ref", each.get("$dynamicRef")), str):
                yield place, reference, resolver
            names = [name for name in each if name not in _NO_SCHEMA or place.rpartition(".")[2] in _OF_SCHEMAS]
            waiting += [(f"{place}.{name}", each[name], resolver) for name in names]
        elif isinstance(each, list):
            waiting += [(f"{place}[{at}]", item, resolver) for at, item in enumerate(each)]


def _followed(place: str, reference: str, resolver: Resolver[object], before: tuple[int, ...]) -> None:
    """Follow a reference; BadInput where nothing is there, or where it comes back without going into a value."""
    from referencing.exceptions import Unresolvable

    if not reference.startswith("#"):
        raise BadInput(f"json_schema: refers to {reference} at {place}, outside itself; put that under $defs")
    try:
        found = resolver.lookup(reference)
    except (Unresolvable, LookupError, ValueError, TypeError) as error:
        raise BadInput(
            f"json_schema: refers to {reference} at {place}, and there is no such definition; add it under $defs or "
            "correct the reference"
        ) from error
    if not isinstance(found.contents, (dict, bool)):
        raise BadInput(f"json_schema: refers to {reference} at {place}, which is no schema; correct the reference")
    if id(found.contents) in before:
        raise BadInput(f"json_schema: {reference} at {place} refers back to itself for ever; correct the reference")
    for each in _in_place(found.contents):
        _followed(place, each, found.resolver, (*before, id(found.contents)))


def _in_place(schema: object) -> Iterator[str]:
    """References that hold of the same value as the schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _in_place(each)
    if not isinstance(schema, dict):
        return
    if isinstance(reference := schema.get("$ref", schema.get("$dynamicRef")), str):
        yield reference
    for name in _IN_PLACE:
        held = schema.get(name)
        yield from _in_place(list(held.values()) if name == "dependentSchemas" and isinstance(held, dict) else held)
