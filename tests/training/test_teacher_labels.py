"""What a teacher is asked: which texts in which round, by which interface at what price, and what its labels
come to.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.endpoints import batches
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.training.teacher_labels import _answers, label_in_rounds, label_texts, targets
from leastwise.use_case import Training
from tests.endpoints.test_batches import BatchServer, running
from tests.workspaces import case_file, opened

CANDIDATE = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Yes or no?"))
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
    table = label_in_rounds(TEXTS, VECTORS, 42, 0, teacher)
    assert [len(rows) for rows in teacher.asked.values()] == [10, 10, 11, 11]
    assert table["id"].nunique() == len(table) == 42
    again = label_in_rounds(TEXTS, VECTORS, 42, 0, Teacher())
    assert again["id"].tolist() == table["id"].tolist(), "a killed labelling asks for the same texts again"


def test_later_rounds_look_where_the_labels_so_far_leave_doubt() -> None:
    teacher = Teacher()
    label_in_rounds(TEXTS, VECTORS, 24, 0, teacher)
    near = [row >= 380 for name in ("round-2", "round-3") for row in teacher.asked[name]]
    assert np.mean(near) > 0.5, "20 of 400 texts are near the border"


@pytest.mark.parametrize("labels", [400, 1000])
def test_where_every_text_is_labelled_nothing_is_chosen(
    labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, work = Teacher(), _workspace(labels)
    monkeypatch.setattr("leastwise.training.teacher_labels.embed", None)
    monkeypatch.setattr("leastwise.training.teacher_labels._asking", lambda *_: teacher)
    table = label_texts(work, CANDIDATE, TEXTS, tmp_path / "parts")
    assert list(teacher.asked) == ["all"] and table["id"].tolist() == TEXTS["id"].tolist()


def _workspace(labels: int) -> Any:
    training = Training(teacher_labels=labels, choose_labels="active")
    task = SimpleNamespace(answers=("left", "right"))
    catalogue = SimpleNamespace(encoder="somewhere")
    return SimpleNamespace(use_case=SimpleNamespace(training=training, task=task), catalogue=catalogue)


def test_an_api_teacher_labels_in_one_batch_where_the_use_case_wants_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "label": ["yes", "no"]})
    rows.to_parquet(tmp_path / "gate.parquet")
    server = BatchServer()
    with running(server) as target:
        price = {"input": 1, "cached": 0.1, "output": 4, "batch_discount": 0.5}
        case = {
            "name": "in-batches",
            "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
            "data": {"gate": "gate.parquet"},
            "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
            "traffic": {"requests_per_month": 1000},
            "training": {"label_in_batches": True},
            "allow_no_test": True,
            "models": {"candidates": [{"uri": "openai:m", "base_url": target.base_url, "price": price}]},
        }
        work = opened(case_file(tmp_path, case))
        answers = _answers(work, CANDIDATE, rows)
    assert [a.text for a in answers] == ["ANSWER:one", "ANSWER:two"] and len(server.jobs) == 1
    alone, in_batch = (100 + 20) / 1e6, (60 + 4 + 20) / 2e6  # one shows how to ask; half the price, cached at a tenth
    assert work.budget.usd_spent == pytest.approx(alone + in_batch, rel=1e-3) and server.asked == ["two"]


def test_probabilities_of_other_answers_than_the_task_has_are_refused() -> None:
    table = pd.DataFrame({"id": ["a"], "text": ["b"], "label": ["Oslo"], "probabilities": [[0.5, 0.5]]})
    assert targets(table, ("Oslo", "Rome")).tolist() == [[0.5, 0.5]]
    assert targets(table.drop(columns="probabilities"), ("Rome", "Oslo")).tolist() == [[0.0, 1.0]]
    with pytest.raises(BadInput, match="2 probabilities a text for 4"):
        targets(table, ("Oslo", "Rome", "Paris", "Berlin"))
