"""Choosing texts to label in rounds: what is asked when, and where the later rounds look."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.models.reference import quick_probabilities
from leastwise.training import label_choice

# Two groups of 190 texts far from their border, and 20 texts on it.
RNG = np.random.default_rng(0)
VECTORS = np.vstack(
    [RNG.normal((-1, 0), 0.05, (190, 2)), RNG.normal((1, 0), 0.05, (190, 2)), RNG.normal((0, 0), 0.05, (20, 2))]
)
TEXTS = pd.DataFrame({"id": [f"t{n}" for n in range(400)], "text": "x"})


class Teacher:
    """Labels by the side of the border, and remembers what it was asked in which round."""

    def __init__(self) -> None:
        self.asked: dict[str, list[int]] = {}

    def __call__(self, texts: pd.DataFrame, name: str) -> pd.DataFrame:
        rows = [int(row_id[1:]) for row_id in texts["id"]]
        self.asked[name] = rows
        return texts.assign(label=["left" if VECTORS[row, 0] < 0 else "right" for row in rows])


def test_rounds_ask_for_as_many_texts_as_wanted_and_for_none_twice() -> None:
    teacher = Teacher()
    table = label_choice.chosen_in_rounds(TEXTS, VECTORS, 42, 0, teacher)
    assert [len(rows) for rows in teacher.asked.values()] == [10, 10, 11, 11]
    assert table["id"].nunique() == len(table) == 42
    again = label_choice.chosen_in_rounds(TEXTS, VECTORS, 42, 0, Teacher())
    assert again["id"].tolist() == table["id"].tolist(), "a killed labelling asks for the same texts again"


def test_later_rounds_look_where_the_labels_so_far_leave_doubt() -> None:
    teacher = Teacher()
    label_choice.chosen_in_rounds(TEXTS, VECTORS, 24, 0, teacher)
    near = [row >= 380 for name in ("round-2", "round-3") for row in teacher.asked[name]]
    assert np.mean(near) > 0.5, "20 of 400 texts are near the border"


def test_a_logistic_regression_gives_a_column_for_each_label_it_has_seen() -> None:
    found = quick_probabilities(VECTORS[[0, 200]], ["left", "right"], VECTORS[[1, 201]], threads=1)
    assert found.shape == (2, 2) and found.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("labels", [400, 1000])
def test_where_every_text_is_labelled_nothing_is_chosen(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, work = Teacher(), _workspace(labels)
    monkeypatch.setattr(label_choice.retrieval, "embed", None)
    table = label_choice.labelled_texts(work, TEXTS, teacher)
    assert list(teacher.asked) == ["all"] and table["id"].tolist() == TEXTS["id"].tolist()


def _workspace(labels: int) -> Any:
    from types import SimpleNamespace

    from leastwise.use_case import Training

    training = Training(teacher_labels=labels, choose_labels="active")
    task = SimpleNamespace(answers=("left", "right"))
    return SimpleNamespace(use_case=SimpleNamespace(training=training, task=task), encoder="somewhere")
