"""Labels and texts are compared by what they are: marks, signs and points that mean something are never taken away."""

import itertools
import random
from typing import Any

import pytest

from leastwise.metrics import exact_label, exact_match, field_f1, normalize, token_f1
from leastwise.use_case.task import Classification

SETS = [
    ("C", "C++", "C#", ".NET"),
    (">50K", "<=50K", "50K"),
    ("A+", "A", "A-", "B"),
    ("-1", "0", "1"),
    ("5*", "4*", "5"),
    ("US", "us", "Us"),
    ("(none)", "none", "n/a"),
    ("是", "否", "是的"),
    ("+", "-", "="),
]


def task(*labels: str) -> Classification:
    return Classification(instruction="Say it.", labels=labels)


@pytest.mark.parametrize("labels", SETS, ids=str)
def test_a_label_as_it_stands_is_that_label_and_no_other(labels: tuple[str, ...]) -> None:
    for label, expected in itertools.product(labels, labels):
        assert exact_label(task(*labels), label, expected).quality == (label == expected)
        assert exact_label(task(*labels), f" {label}\n", expected).quality == (label == expected)


@pytest.mark.parametrize(
    ("labels", "answer", "meant"),
    [
        (SETS[0], "c++", "C++"),
        (SETS[0], '"C#".', "C#"),
        (SETS[0], "**C++**", "C++"),
        (SETS[0], "C.", "C"),
        (SETS[0], "net", ".NET"),
        (SETS[0], "C+", None),
        (SETS[0], "Ｃ＋＋", "C++"),
        (SETS[1], ">50k.", ">50K"),
        (SETS[1], "<50K", None),
        (SETS[3], "−1", "-1"),
        (SETS[3], "+1", None),
        (SETS[3], "(1)", "1"),
        (SETS[4], "`5*`", "5*"),
        (SETS[5], "uS", None),  # several fit, none is meant
        (SETS[5], "us.", "us"),
        (("yes!", "no"), "Yes", "yes!"),  # both sides are folded alike
        (("1", "2"), "-1", None),
        (("C", "Java"), "C#", None),
        (("naïve", "wise"), "nai\u0308ve", "naïve"),
        (("是", "否"), "是。", "是"),
        (SETS[8], "...", None),
        (("yes", "no"), "", None),
    ],
)
def test_what_wraps_a_label_is_taken_off_only_where_exactly_one_is_left(
    labels: tuple[str, ...], answer: str, meant: str | None
) -> None:
    assert normalize(task(*labels), answer) == meant


@pytest.mark.parametrize(
    "labels", [("naïve", "nai\u0308ve"), ("a", "a "), ("A", "Ａ"), ("a b", "a\u200b b"), ("x", "\u200b")]
)
def test_labels_that_cannot_be_told_apart_are_refused_when_read(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot be told apart|shows nothing"):
        task(*labels)


@pytest.mark.parametrize(
    ("answer", "expected", "is_right"),
    [
        ("1.5", "15", False),
        ("1.5", "1.5.", True),
        ("-3", "3", False),
        ("−3", "-3", True),
        ("(-3)", "-3", True),
        ("1,000", "1000", True),
        ("1,5", "15", False),
        (".5", "0.5", True),
        ("3/4", "34", False),
        ("12:30", "1230", False),
        ("<5", ">5", False),
        ("> 5", ">5", True),
        ("10²", "102", False),
        ("٣", "3", True),
        ("$5", "5", True),
        ("C++", "C#", False),
        ("O-", "O+", False),
        ("vitamin A", "vitamin", False),
        ("A", "B", False),
        ("a", "the", False),
        ("The barn!", "barn", True),
        ("“barn”", "barn", True),
        ("ｂａｒｎ", "barn", True),
        ("cafe\u0301", "café", True),
        (":)", ":(", False),
        (":)", ":)", True),
        ("", "the", False),
        ("", "?!", False),
        (" ", "", False),
        ("天气 很好。", "天气很好", True),
    ],
)
def test_numbers_keep_point_and_sign_and_an_empty_answer_is_never_right(
    answer: str, expected: str, is_right: bool
) -> None:
    assert exact_match(answer, [expected]) == is_right
    assert (token_f1(answer, [expected]) == 1) == is_right


def test_words_of_scripts_without_blanks_overlap_letter_by_letter() -> None:
    assert token_f1("今天天气好", ["今天天气很好"]) == pytest.approx(10 / 11)
    assert token_f1("วันนี้", ["วันนั้น"]) > 0.5


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ([{"n": "tea", "usd": 2}, {"n": "rum", "usd": 9}], [{"n": "rum", "usd": 9}, {"n": "tea", "usd": 2}], 1),
        ([{"n": "tea", "usd": 9}, {"n": "rum", "usd": 2}], [{"n": "rum", "usd": 9}, {"n": "tea", "usd": 2}], 0.5),
        ([{"n": "tea", "usd": 2}], [{"n": "rum", "usd": 9}, {"n": "tea", "usd": 2}], 2 / 3),
        ([["a", "b"], ["c"]], [["a"], ["c", "b"]], 2 / 3),
        ([{"t": ["x", "y"], "p": 1}], [{"t": ["y"], "p": 1}], 4 / 5),
    ],
)
def test_items_of_a_list_are_matched_as_wholes_so_that_swapped_values_cost(
    answer: Any, expected: Any, score: float
) -> None:
    assert field_f1({"items": answer}, {"items": expected}) == pytest.approx(score)
    assert field_f1({"items": expected}, {"items": answer}) == pytest.approx(score)


def test_long_lists_are_matched_in_any_order() -> None:
    rng = random.Random(0)
    items = [{"id": at, "n": rng.randrange(9)} for at in range(3000)]
    assert field_f1({"items": items[::-1]}, {"items": items}) == 1
    assert field_f1({"items": [{"id": 1}] * 5000}, {"items": items}) < 0.01


def test_the_same_words_in_another_unicode_form_are_the_same_value() -> None:
    assert field_f1({"n": "Cafe\u0301  Ｒ１"}, {"n": "café R1"}) == 1 and field_f1({"n": "10²"}, {"n": "102"}) == 0
