"""Rare labels count as much as frequent ones, as in scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from leastwise.metrics import macro_f1


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_macro_f1_is_that_of_scikit_learn_over_the_expected_labels(pairs):
    answers, expected = map(list, zip(*pairs, strict=True))
    theirs = f1_score(expected, answers, labels=sorted(set(expected)), average="macro", zero_division=0)
    assert macro_f1(answers, expected) == pytest.approx(theirs)


def test_an_answer_that_means_no_label_lowers_macro_f1_and_columns_must_match():
    assert macro_f1([None, "b"], ["a", "b"]) == 0.5
    with pytest.raises(ValueError, match="1 answers to 2"):
        macro_f1(["a"], ["a", "b"])
