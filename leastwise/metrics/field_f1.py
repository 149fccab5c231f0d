"""How many fields of an extracted record are right? It says nothing of its schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from leastwise.text_forms import one_form

MOST_PAIRS = 1_000_000  # of items of two lists that are compared with each other; longer ones are met in their order


def field_f1(answer: object, expected: object) -> float:
    """F1 over (field, value) pairs of two parsed JSON records, 0..1; an answer that did not parse is None and scores 0.

    Nested fields are compared by their path. Items of a list are matched as wholes, each with at most one, so that most
    of their fields agree (optimal assignment): their order does not count, how often does, and values that were swapped
    between items cost. Fields that are null or empty are as good as absent. Strings are compared in one Unicode form,
    without blanks around them and regardless of case; 1, 1.0 and "1" are different values where their types differ as
    JSON (number against string). Two records without a field score 1.
    """
    if answer is None:
        return 0.0
    ours, theirs = _Values(answer), _Values(expected)
    if not ours.size and not theirs.size:
        return 1.0
    return 2 * _common(ours, theirs) / (ours.size + theirs.size)


class _Values:
    """A JSON value to compare: `size` of its leaves, `key` equal for values that are the same."""

    def __init__(self, value: object) -> None:
        self.fields: dict[str, _Values] = {}
        self.items: list[_Values] = []
        self.key: object = None
        self.size = 0
        if isinstance(value, dict):
            self.fields = {name: each for name in value if (each := _Values(value[name])).size}
            self.key = ("record", frozenset((name, each.key) for name, each in self.fields.items()))
        elif isinstance(value, list):
            self.items = [each for item in value if (each := _Values(item)).size]
            self.key = ("list", frozenset(Counter(each.key for each in self.items).items()))
        elif (key := _leaf(value)) is not None:
            self.key, self.size = key, 1
        self.size += sum(each.size for each in (*self.fields.values(), *self.items))


def _leaf(value: object) -> tuple[str, object] | None:
    if isinstance(value, str):
        text = one_form(value).casefold()
        return ("string", text) if text else None
    if value is None:
        return None
    return ("boolean" if isinstance(value, bool) else "number", value)


def _common(ours: _Values, theirs: _Values) -> int:
    """How many leaves two values have in common."""
    if ours.key == theirs.key:
        return ours.size
    if ours.items or theirs.items:
        return _matched(ours.items, theirs.items)
    return sum(_common(ours.fields[name], theirs.fields[name]) for name in ours.fields.keys() & theirs.fields.keys())


def _matched(ours: Sequence[_Values], theirs: Sequence[_Values]) -> int:
    """Leaves in common under the best assignment; items that are the same are each other's best match."""
    same = Counter(each.key for each in ours) & Counter(each.key for each in theirs)
    left, right = _without(ours, same), _without(theirs, same)
    found = (sum(each.size for each in ours) - sum(each.size for each in left)) if same else 0
    if len(left) * len(right) > MOST_PAIRS:
        return found + sum(_common(one, other) for one, other in zip(left, right, strict=False))
    return found + _assigned(left, right)


def _assigned(left: Sequence[_Values], right: Sequence[_Values]) -> int:
    from scipy.optimize import linear_sum_assignment

    common = np.array([[_common(one, other) for other in right] for one in left], dtype=np.int64)
    if not common.any():
        return 0
    return int(common[linear_sum_assignment(common, maximize=True)].sum())


def _without(items: Sequence[_Values], same: Counter[object]) -> list[_Values]:
    left, kept = same.copy(), []
    for each in items:
        if left[each.key] > 0:
            left[each.key] -= 1
        else:
            kept.append(each)
    return kept
