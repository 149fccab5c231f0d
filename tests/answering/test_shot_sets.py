"""Sets of fixed examples a search may choose among: the use case's own first, the drawn ones by their rows alone."""

import itertools
import json
import random

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.answering.prompts import fixed_shots, longest_of, shot_sets
from leastwise.ladder.candidate import Shot
from leastwise.use_case.task import Classification, FreeText

LABELS = ["a", "b", "c"]
TASK = Classification(instruction="Which?", labels=tuple(LABELS))
ROWS = st.lists(st.tuples(st.text("xyz ", min_size=1), st.sampled_from(LABELS)), min_size=1, max_size=40)


def table(rows: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, count=st.integers(1, 12), drawn=st.integers(0, 3))
def test_sets_differ_and_show_labels_in_turn_as_far_as_there_are(
    rows: list[tuple[str, str]], count: int, drawn: int
) -> None:
    train = table(rows)
    sets = shot_sets(TASK, train, count, drawn)
    assert sets[0] == fixed_shots(TASK, train, count) and len(set(sets)) == len(sets) <= drawn + 1
    most = train["label"].value_counts()
    for each in sets:
        assert len(each) == min(count, len(rows))
        shown = pd.Series([one.label for one in each]).value_counts()
        fewest = min(shown.get(label, 0) for label in most.index)
        assert all(number - fewest <= 1 or fewest == most.min() for number in shown)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_drawn_sets_do_not_hang_on_the_order_of_the_table(rows: list[tuple[str, str]], order: random.Random) -> None:
    distinct = list({text.strip(): (text.strip(), label) for text, label in rows if text.strip()}.values())
    shuffled = order.sample(distinct, len(distinct))
    every, again = (shot_sets(TASK, table(each), 4, 3) for each in (distinct, shuffled))
    firsts = {*every[:1], *again[:1]}  # the use case's own are the first rows of the table
    assert {*every[1:]} - firsts == {*again[1:]} - firsts


def test_without_labels_rows_are_drawn_and_without_rows_nothing_is() -> None:
    task = FreeText(kind="free_text", instruction="Answer.", metric="token_f1")
    train = table([(f"question {n}", json.dumps([f"answer {n}"])) for n in range(30)])
    sets = shot_sets(task, train, 3, 2)
    assert [len(each) for each in sets] == [3, 3, 3]
    assert len(set(itertools.chain(*sets))) > 3
    assert shot_sets(task, None, 3, 2) == shot_sets(task, train, 0, 2) == []


def test_the_worst_case_counts_the_longest_set_that_may_be_shown() -> None:
    short, long = (Shot(text="x", label="a"),), (Shot(text="x " * 500, label="a"),)
    assert longest_of([short, long]) == long and longest_of([]) == ()
