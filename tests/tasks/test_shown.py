"""What tasks show in MLflow of a stage and of a climb: in the background, and whatever becomes of the tables."""

import logging
from pathlib import Path

import pytest

from leastwise.answering.workspace import Workspace
from leastwise.record.review import background
from leastwise.record.run import TRACES
from tasks.session.shown import show_rest, show_stage
from tasks.session.workspace import open_workspace
from tests.conversations import conversations
from tests.record.review.test_showing import logged


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def test_a_stage_is_shown_in_the_background_once_nothing_is_timed(work: Workspace) -> None:
    run = logged(work)
    with background.held():
        show_stage(work, run)
        assert not run.again().tag(TRACES)
    background.wait()
    assert run.again().tag(TRACES) == "4"


def test_a_table_that_is_gone_when_a_climb_has_ended_costs_a_line_and_no_more(
    work: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = logged(work)
    (tmp_path / "gate.parquet").unlink()
    with caplog.at_level(logging.WARNING, "leastwise"):
        show_rest(open_workspace(work.run.id))
    assert "the tables could not be shown in MLflow" in caplog.text
    assert run.again().tag(TRACES) == "4", "what can be shown is"


def test_the_end_of_a_climb_shows_the_gate_rows_as_a_data_set(work: Workspace) -> None:
    show_rest(work)
    (shown,) = [each for each in work.run.again().run.inputs.dataset_inputs if " gate " in each.dataset.name]
    assert shown.dataset.source_type == "mlflow_evaluation_dataset"
