"""How many fields of an extracted record are right? It says nothing of its schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_EDGE = " \t\n"


def field_f1(answer: object, expected: object) -> float:
    """F1 over (field, value) pairs of two parsed JSON records, 0..1; an answer that did not parse is None and scores 0.

    Nested fields are compared by their path. Items of a list are a multiset: their order does not count, how often
    does. Fields that are null or empty are as good as absent. Strings are compared without blanks around them and
    regardless of case; 1, 1.0 and "1" are different values where their types differ as JSON (number against string).
    Two records without a field score 1.
    """
    if answer is None:
        return 0.0
    ours, theirs = Counter(_leaves(answer)), Counter(_leaves(expected))
    if not ours and not theirs:
        return 1.0
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str, object]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, f"{path}/{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, f"{path}[]")
    elif isinstance(value, str):
        if value.strip(_EDGE):
            yield path, "string", value.strip(_EDGE).casefold()
    elif value is not None:
        yield path, "boolean" if isinstance(value, bool) else "number", value
