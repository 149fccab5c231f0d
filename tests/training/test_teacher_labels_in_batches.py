"""An api teacher is asked through the batch interface where the use case wants it, at that interface's price."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from leastwise.answering.workspace import Workspace
from leastwise.endpoints import batches
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.training import teaching
from tasks.climb import open_climb
from tests.endpoints.test_batches import BatchServer, running


def test_an_api_teacher_labels_in_one_batch_where_the_use_case_wants_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "label": ["yes", "no"]})
    rows.to_parquet(tmp_path / "gate.parquet")
    server = BatchServer()
    with running(server) as target:
        price = {"input": 1, "cached": 0.1, "output": 4, "batch_discount": 0.5}
        case = {
            "name": "in-batches",
            "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
            "data": {"gate": "gate.parquet"},
            "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
            "traffic": {"requests_per_month": 1000},
            "training": {"label_in_batches": True},
            "allow_no_test": True,
            "models": {"candidates": [{"uri": "openai:m", "base_url": target.base_url, "price": price}]},
        }
        (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
        work = Workspace.of(open_climb.fn(str(tmp_path / "case.yaml")))
        teacher = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Yes or no?"))
        answers = teaching.labelled(work, teacher, rows)
    assert [a.text for a in answers] == ["ANSWER:one", "ANSWER:two"] and len(server.jobs) == 1
    assert work.usd_spent == pytest.approx(2 * (60 + 4 + 20) / 2e6, rel=1e-3), "half the price, cached input at a tenth"
