"""What several tests of answering have in common."""

from pathlib import Path

import pytest

from leastwise.ladder.candidate import Weights
from leastwise.models import weights
from tests.engines.test_gguf import adapter_on


@pytest.fixture(scope="package")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Drawn weights on the tiny model, as a training leaves them."""
    made = adapter_on(tiny, tmp_path_factory.mktemp("adapter") / "a")
    return Weights(kind="adapter", uri=made.as_uri(), revision=weights.directory_hash(made))
