"""A climb's run: the tables it was given, and how long each stage under it took."""

from pathlib import Path

import pytest

from leastwise.answering.workspace import Workspace
from tests.conversations import conversations


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def test_a_run_names_the_tables_it_was_given(work: Workspace) -> None:
    (given,) = work.run.again().run.inputs.dataset_inputs
    assert given.dataset.name == "gate"
    assert work.tables.hashes["gate"].startswith(given.dataset.digest)
