"""A candidate with weights that a stage made answers from these very weights, wherever its base answers untuned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerers import open_answerer
from leastwise.answering.reaching.reached import target_of
from leastwise.answering.servers import engine_of
from leastwise.answering.workspace import Workspace
from leastwise.evidence.abstention import Guard
from leastwise.ladder.candidate import CachePolicy, Candidate, Cascade, Prompt, Weights
from leastwise.models import weights
from tests.servers.hostile_server import HostileServer, hostile_server
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "output": 4.0}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[HostileServer]:
    """Somebody else's server, which has the base as it was and says `alpha` or `beta` to everything."""
    with hostile_server() as server:
        yield server


@pytest.fixture
def work(
    tiny: Path, elsewhere: HostileServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """An open climb whose base answers at somebody else's address, under a name of theirs, with habits of theirs."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    elsewhere.forget()
    rows = [{"id": f"r{i}", "text": f"text {i} key=alpha it is", "label": "alpha"} for i in range(60)]
    pd.DataFrame(rows).to_parquet(tmp_path / "gate.parquet")
    address = elsewhere.base_url("good")
    base: dict[str, Any] = {"uri": tiny.as_uri(), "base_url": address, "served_name": "base", "price": PRICE}
    base["habits"] = {"system_role": False, "logprobs": False}
    case: dict[str, Any] = {
        "name": "served",
        "task": {"instruction": "Which?", "labels": ["alpha", "beta"], "decline_label": "none"},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "concurrency": 2},
        "models": {"candidates": [base], "base": base},
        "last_stage": "prompt",
        "allow_no_test": True,
    }
    return opened(case_file(tmp_path, case))


def tuned(tiny: Path, adapter: Weights, **changes: Any) -> Candidate:
    plain = Candidate(stage="fine_tune", model=tiny.as_uri(), venue="api", prompt=Prompt(system="Which?"))
    return plain.model_copy(update={"weights": adapter, **changes})


def test_no_request_of_a_trained_candidate_reaches_the_server_of_its_base_or_is_made_as_that_wants_it(
    tiny: Path, adapter: Weights, work: Workspace, elsewhere: HostileServer, tmp_path: Path
) -> None:
    made = Path(shutil.copytree(tiny, tmp_path / "made")).as_uri()  # of the base, and the use case does not name it
    whole = Weights(kind="merged", uri=made, revision=weights.directory_hash(tiny))
    plain, rows = tuned(tiny, adapter), work.question.gate.rows.head(1)
    kinds = {
        "adapter": plain,
        "behind a cache": tuned(tiny, adapter, cache=CachePolicy(exact=True, provider=True)),
        "behind a guard": tuned(tiny, adapter, guard=Guard(score="max_probability", below=0.0)),
        "first of a cascade": tuned(tiny, adapter, cascade=Cascade(first=plain, below=0.5)),
        "at a managed host": tuned(tiny, adapter, venue="managed"),
        "on own machines": tuned(tiny, adapter, venue="self_host", stage="self_host"),
        "on a further pre-trained base": tuned(tiny, adapter, model=made, stage="pretrain"),
        "a model of its own": tuned(tiny, whole, stage="distill"),
        "a further pre-trained base alone": tuned(tiny, adapter, model=made, weights=None, stage="pretrain"),
    }
    for name, candidate in kinds.items():
        with open_answerer(work, candidate) as answerer:
            (answer,) = answerer.answer(rows)
        assert answer.text is not None, f"{name}: {answer.error}"
        assert elsewhere.calls("good") == 0, name
        assert work.budget.usd_spent == 0.0 or not candidate.weights, f"{name}: nobody is paid for it"
    with ExitStack() as stack:
        target = target_of(work, plain, stack)
        assert target.is_own and target.habits.system_role is None, "training rendered the instruction by itself"
        assert (target.base_url or "").startswith("http://127.0.0.1") and target.model != "base"
    with open_answerer(work, tuned(tiny, adapter, weights=None, stage="prompt")) as answerer:
        answerer.answer(rows)
    assert elsewhere.calls("good") == 1, "the base untuned is asked where it answers"


def test_which_engine_answers_and_why_is_said_in_words(tiny: Path, adapter: Weights, work: Workspace) -> None:
    untuned = tuned(tiny, adapter, weights=None, stage="prompt")
    student = tuned(tiny, adapter.model_copy(update={"kind": "student"}), prompt=None, stage="distill")
    said = {
        "no server but ours": tuned(tiny, adapter),
        "the endpoint at 127.0.0.1: base_url names it": untuned,
        "self_host moves": tuned(tiny, adapter, weights=None, venue="self_host"),
        "MLflow's model server": student,
        "MLflow's model server on this machine: its one engine for an encoder; then the endpoint at": tuned(
            tiny, adapter, weights=None, cascade=Cascade(first=student, below=0.5)
        ),
    }
    for words, candidate in said.items():
        assert words in engine_of(work.catalogue, candidate)
