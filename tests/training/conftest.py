"""A real S3 server for those that share files between machines, and a training by one process to hold theirs to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leastwise.models.chat import format_chat
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.training import fine_tune
from leastwise.training.training_rows import Row
from leastwise.use_case.task import Classification
from tests.servers.s3_server import S3, s3_server
from tests.training.together import LABELS, SETTINGS


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


@pytest.fixture(scope="session")
def rows(tiny: Path) -> list[Row]:
    texts = [(f"{word} number {n}", label) for n in range(8) for word, label in zip("abc", LABELS, strict=True)]
    return [Row(format_chat(tiny, [{"role": "user", "content": text}]), label) for text, label in texts]


@pytest.fixture(scope="session")
def metric(rows: list[Row]) -> DevMetric:
    return DevMetric(
        task=Classification(instruction="?", labels=LABELS),
        prompts=tuple(row.prompt for row in rows[:8]),
        expected=tuple(row.completion for row in rows[:8]),
        max_new_tokens=4,
    )


@pytest.fixture(scope="session")
def alone_at(tiny: Path, rows: list[Row], metric: DevMetric, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    folder = tmp_path_factory.mktemp("alone") / "adapter"
    fine_tune(tiny, rows, rows[:8], SETTINGS, folder, None, metric)
    return folder


@pytest.fixture(scope="session")
def alone(alone_at: Path) -> TrainingReport:
    return TrainingReport.model_validate_json((alone_at / "training.json").read_text())
