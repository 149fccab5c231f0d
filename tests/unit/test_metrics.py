"""What one answer scores: wrong is 0, right is 1, and nothing that was not scored becomes a score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from leastwise.metrics import agreement, exact_label, exact_match, field_f1, macro_f1, self_consistency, token_f1
from leastwise.use_case.task import Classification

TASK = Classification(instruction="Yes or no?", labels=("yes", "no"), decline_label="none")
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "b"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("answer", "expected", "scores"),
    [
        ("yes", "yes", (1, 1, 0)),
        (" Yes.", "yes", (1, 0, 0)),
        ("no", "yes", (0, 1, 0)),
        ("", "yes", (0, 0, 0)),
        ("yes, surely", "yes", (0, 0, 0)),
        ("none", "yes", (0, 1, 1)),
        ("none", None, (0, 1, 1)),
        ("yes", None, (0, 1, 0)),
    ],
)
def test_a_label_is_right_but_for_case_and_edges_and_adheres_only_as_it_stands(answer, expected, scores):
    got = exact_label(TASK, answer, expected)
    assert (got.quality, got.adherence, got.declined) == scores


@pytest.mark.parametrize(
    ("answer", "expected", "match", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("tower", ["Eiffel Tower", "a tower"], 1, 1),
        ("tower of Paris", ["eiffel tower"], 0, 2 / 5),
        ("", ["x"], 0, 0),
        ("the", [""], 1, 1),
        ("x x", ["x"], 0, 2 / 3),
    ],
)
def test_free_answers_are_compared_by_their_words(answer, expected, match, f1):
    assert exact_match(answer, expected) == match
    assert token_f1(answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize("metric", [exact_match, token_f1])
def test_a_row_without_an_expected_answer_is_not_scored_0(metric):
    with pytest.raises(ValueError, match="no expected answer"):
        metric("x", [])


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


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_macro_f1_is_that_of_scikit_learn_over_the_expected_labels(pairs):
    answers, expected = map(list, zip(*pairs, strict=True))
    theirs = f1_score(expected, answers, labels=sorted(set(expected)), average="macro", zero_division=0)
    assert macro_f1(answers, expected) == pytest.approx(theirs)


def test_an_answer_that_means_no_label_lowers_macro_f1_and_columns_must_match():
    assert macro_f1([None, "b"], ["a", "b"]) == 0.5
    with pytest.raises(ValueError, match="1 answers to 2"):
        macro_f1(["a"], ["a", "b"])


def test_self_consistency_is_the_chance_that_two_answers_agree_however_many_are_sampled():
    assert self_consistency(["a", "a"]) == 1 and self_consistency(["a", "b"]) == 0
    rng, chance = np.random.default_rng(0), 0.7**2 + 0.3**2
    for samples in (2, 5):
        drawn = [self_consistency((rng.random(samples) < 0.7).tolist()) for _ in range(4000)]
        assert np.mean(drawn) == pytest.approx(chance, abs=0.03)
    with pytest.raises(ValueError, match="at least two"):
        self_consistency(["a"])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40))
def test_agreement_above_chance_is_that_of_scikit_learn(pairs):
    judge, human = map(list, zip(*pairs, strict=True))
    got = agreement(judge, human)
    assert got.share == np.mean([a == b for a, b in pairs])
    if len({*judge, *human}) > 1:
        assert got.kappa == pytest.approx(cohen_kappa_score(judge, human))
    else:
        assert got.kappa == 0
