"""A climb's workspace: what reading it costs."""

from pathlib import Path

import pytest

from leastwise.answering.workspace import Workspace
from leastwise.record.alpha_account import EXPERIMENT
from tasks.session.workspace import situation_of
from tests.conversations import conversations


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def draws(work: Workspace) -> int:
    account = work.run.client.get_experiment_by_name(EXPERIMENT)
    return len(work.run.client.search_runs([account.experiment_id])) if account else 0


def test_what_the_next_step_is_decided_on_draws_no_alpha_and_an_evaluation_does(work: Workspace) -> None:
    assert situation_of(work).estimates["prompt"] >= 0
    assert draws(work) == 0
    assert 0 < work.alphas.to_pass < work.use_case.alpha
    assert draws(work) == 1
