"""A record is compared field by field, whatever the order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.metrics import field_f1

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "b"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ({"city": " Bonn "}, {"city": "bonn", "zip": None}, 1),
        ({"city": "Bonn", "zip": "1"}, {"city": "Bonn", "zip": 1}, 0.5),
        (None, {}, 0),
        ({}, {}, 1),
        ({}, {"a": 1}, 0),
        ({"a": [1, 2, 2]}, {"a": [2, 1, 2]}, 1),
        ({"a": [2]}, {"a": [2, 2]}, 2 / 3),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, 0),
        ({"a": True}, {"a": 1}, 0),
    ],
)
def test_fields_of_a_record_are_compared_one_by_one(answer, expected, score):
    assert field_f1(answer, expected) == pytest.approx(score)


@given(JSON, JSON)
def test_field_f1_is_symmetric_a_share_and_1_for_the_same_record(one, other):
    assert 0 <= field_f1(one, other) <= 1
    if one is not None and other is not None:
        assert field_f1(one, other) == field_f1(other, one)
        assert field_f1(one, one) == 1
