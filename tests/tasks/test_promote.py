"""What becomes champion: what the gate was sure of; what an estimate let pass only on a person's word."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate
from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.record.reports import decision
from leastwise.record.run import OUTCOME
from leastwise.record.stage_run import StageRun
from tasks.climb import confirm, finish, next_step, skip
from tasks.promote import promote_run
from tests.evaluating.test_audit import answered_by_a_toy
from tests.workspaces import case_file, log_stage, opened, quality

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
PROMPT = Candidate(stage="prompt", model="openai:gpt-4o-mini", venue="api")


def climb(folder: Path, **changes: Any) -> Workspace:
    labels = ["yes" if i % 3 else "no" for i in range(60)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "label": labels})
    rows.to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "estimated",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
        "allow_no_test": True,
    }
    return opened(case_file(folder, case | changes))


def by_estimate(work: Workspace) -> StageRun:
    return log_stage(work, PROMPT, quality(0.65, 0.99, margin=0.1), tags={"leastwise.resolution": "pass"})


@pytest.mark.parametrize(("accept", "status"), [(False, 4), (True, 0)])
def test_a_climb_that_ends_on_an_estimate_says_so_everywhere_and_exits_4_unless_told_otherwise(
    home: Path, tmp_path: Path, accept: bool, status: int
) -> None:
    work = climb(tmp_path, accept_estimate=accept)
    by_estimate(work)
    step = next_step(work.run.id)
    ending = finish.fn(work.run.id, step, confirm.fn(work.run.id, "prompt"))
    assert (ending.outcome, ending.sure, ending.exit_status) == ("prompt", False, status)
    words = decision(work.use_case, ending, [])
    assert "NOT SURELY" in words and "surely ≥" not in words
    assert work.run.again().tag("leastwise.sure") == "no"


def test_what_passed_by_an_estimate_becomes_champion_only_on_a_persons_word(home: Path, tmp_path: Path) -> None:
    work = climb(tmp_path)
    run, path = by_estimate(work), str(tmp_path / "case.yaml")
    work.run.write(tags={OUTCOME: "prompt"})
    for named in (run.id, work.run.id):
        with pytest.raises(BadInput, match=r"by the plain estimate, not surely .*third argument"):
            promote_run.fn(path, named)
    registry = Registry(connect(), "estimated")
    assert registry.champion() is None
    ending = promote_run.fn(path, run.id, "Ada: the pilot is small")
    assert ending.outcome == "promoted" and registry.champion() is not None
    assert "not surely, on a person's word (Ada: the pilot is small)" in registry.log()[0].reason


def test_a_person_who_granted_it_when_asked_has_given_their_word(home: Path, tmp_path: Path) -> None:
    work = climb(tmp_path, on_undecided="ask")
    run = log_stage(work, PROMPT, quality(0.65, 0.99, margin=0.1), tags={"leastwise.resolution": "ask"})
    work.run.log_answer("prompt", "granted", "Ada", "the pilot is small")
    step = next_step(work.run.id)
    assert (step.sure, step.accepted) == (False, True)
    assert promote_run.fn(str(tmp_path / "case.yaml"), run.id).outcome == "promoted"


def test_an_answer_that_is_reused_is_resolved_as_the_use_case_says_today(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_by_a_toy(monkeypatch)
    first = climb(tmp_path, alpha=0.0001)
    assert evaluate_stage(first, "prompt", [PROMPT]).run.resolution == "pass"
    first.run.close()
    again = evaluate_stage(climb(tmp_path, alpha=0.0001, on_undecided="stop"), "prompt", [PROMPT])
    assert again.how == "linked" and again.run.again().resolution == "stop"


def test_a_skip_is_considered_anew_where_a_stage_below_it_was_measured_afterwards(home: Path, tmp_path: Path) -> None:
    work = climb(tmp_path)
    skip(work.run.id, "rag", "for a reason")
    assert [run.stage for run in work.run.stage_runs()] == ["rag"]
    log_stage(work, PROMPT, quality(0.1, 0.2, margin=0.1))
    assert [run.stage for run in work.run.stage_runs()] == ["prompt"]
    skip(work.run.id, "rag", "for a reason")
    skip(work.run.id, "rag", "for a reason")  # logged once
    assert [run.stage for run in work.run.stage_runs()] == ["prompt", "rag"]
