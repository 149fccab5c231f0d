"""A question is named by everything that changes its answer."""

from pathlib import Path
from typing import Any

import pytest

from leastwise.answering.workspace import Workspace
from leastwise.rows.question import Question
from leastwise.use_case.settings import Hosting
from tests.conversations import conversations


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


@pytest.mark.parametrize("change", [{"text_column": "talk"}, {"unit_by": None}, {"population": "this_set"}])
def test_other_columns_of_the_same_table_ask_another_question(work: Workspace, change: dict[str, Any]) -> None:
    data = work.use_case.data.model_copy(update=change)
    other = Question(work.use_case.model_copy(update={"data": data}), work.tables)
    assert other.key != work.question.key


@pytest.mark.parametrize(
    "left",
    [
        {"endpoint": "process"},
        {"endpoint_host": "::1"},
        {"endpoint_port": 0},
        {"load_concurrency": 0},
        {"load_seconds": 1},
    ],
)
def test_where_an_endpoint_is_left_and_how_long_it_is_measured_ask_the_same_question(
    work: Workspace, left: dict[str, Any]
) -> None:
    hosting = work.use_case.hosting
    assert not set(left) & set(hosting.model_dump()), "not written while it has its default: older keys stay"
    changed = Hosting.model_validate(hosting.model_dump() | left)
    assert Hosting.model_validate(changed.model_dump()) == changed != hosting
    other = Question(work.use_case.model_copy(update={"hosting": changed}), work.tables)
    assert other.key == work.question.key
    dearer = Question(work.use_case.model_copy(update={"hosting": Hosting(usd_per_month_per_machine=1)}), work.tables)
    assert dearer.key != work.question.key


def test_where_checkpoints_are_put_asks_the_same_question_and_4_bits_another(work: Workspace) -> None:
    training = work.use_case.training
    keys = []
    for change in ({"checkpoints": "s3://bucket/checkpoints"}, {"quantize": "nf4"}):
        changed = training.model_copy(update=change)
        keys.append(Question(work.use_case.model_copy(update={"training": changed}), work.tables).key)
    assert keys[0] == work.question.key != keys[1]


@pytest.mark.parametrize("change", [{"certificate_days": 30}, {"budget_usd": 0.5}, {"accept_estimate": True}])
def test_money_leave_and_how_long_a_certificate_holds_ask_the_same_question(
    work: Workspace, change: dict[str, Any]
) -> None:
    other = Question(work.use_case.model_copy(update=change), work.tables)
    assert other.key == work.question.key
