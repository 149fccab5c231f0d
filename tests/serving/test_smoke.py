"""A model that is asked before anything relies on it: what does not answer is said in words, not as a defect."""

from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.serving import smoke


def test_a_model_that_does_not_answer_in_time_is_refused_with_where_to_look(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke, "WITHIN_S", 0.05)
    with pytest.raises(
        BadInput, match=r"models:/m-1 cannot be served: it has not answered 1 texts within 0\.05 s.*log"
    ):
        smoke.answers_of("models:/m-1", ["a"], tmp_path / "smoke.log")
