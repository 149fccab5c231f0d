"""A climb's run: the tables it was given, and how long each stage under it took."""

import time
from pathlib import Path

import pytest

from leastwise.answering.workspace import Workspace
from leastwise.record.run import KIND, PARENT
from leastwise.record.stage_run import StageRun
from tests.conversations import conversations


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def test_a_run_names_the_tables_it_was_given(work: Workspace) -> None:
    (given,) = work.run.again().run.inputs.dataset_inputs
    assert given.dataset.name == "gate"
    assert work.tables.hashes["gate"].startswith(given.dataset.digest)


LATER_MS = 60_000  # after the climb was opened: by then this process was there


def ended(work: Workspace, seconds_in: float | None, under: str = "") -> StageRun:
    """A run under the climb (or under one of its runs) that ended so many seconds in; None where it has not ended."""
    client = work.run.client
    tags = {KIND: "stage", PARENT: under or work.run.id}
    run = client.create_run(work.run.experiment_id, tags=tags)
    if seconds_in is not None:
        client.set_terminated(run.info.run_id, end_time=int(opened_ms(work) + LATER_MS + 1000 * seconds_in))
    return StageRun.read(client, run.info.run_id)


def opened_ms(work: Workspace) -> int:
    return int(work.run.run.info.start_time)


def test_a_stage_took_the_seconds_since_the_run_before_it_ended_whatever_was_tried_or_trained_in_it(
    work: Workspace,
) -> None:
    ended(work, 10)
    ended(work, 25)
    stage = ended(work, 67.5)
    ended(work, 60, under=stage.id)
    assert work.run.seconds_of(stage) == pytest.approx(67.5 - 25)


def test_the_first_stage_took_the_seconds_since_this_process_took_the_climb_up(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = ended(work, 5)
    assert work.run.seconds_of(stage) == pytest.approx(LATER_MS / 1000 + 5), "the climb was opened by this process"
    monkeypatch.setattr("leastwise.record.climb_run._process_start_ms", lambda: opened_ms(work) + LATER_MS + 2000)
    assert work.run.seconds_of(stage) == pytest.approx(3), "the climb was there already, and this process resumed it"


def test_a_stage_that_was_resumed_did_not_take_the_time_nobody_worked_on_it(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(work, 5)
    stage = ended(work, 1000)
    monkeypatch.setattr("leastwise.record.climb_run._process_start_ms", lambda: opened_ms(work) + LATER_MS + 990_000)
    assert work.run.seconds_of(stage) == pytest.approx(10)


def test_a_stage_that_has_not_ended_took_the_seconds_until_now(work: Workspace) -> None:
    stage = ended(work, None)
    assert work.run.seconds_of(stage) == pytest.approx(time.time() - opened_ms(work) / 1000, abs=5)
