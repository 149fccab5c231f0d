"""Anybody can derive a verdict again from MLflow alone, and is told where what was logged does not hold together."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.audit import differences, ending_differences
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import ClimbEnding
from leastwise.metrics.answer import Answer
from leastwise.record.judged_runs import use_case_above
from leastwise.record.run import CONFIRMED, OUTCOME, SURE
from leastwise.record.stage_run import StageRun
from tasks.audit import audit_verdicts
from tests.record.test_certificate import climbed
from tests.workspaces import case_file, opened

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}


class Toy(PlainAnswerer):
    """Answers rightly but for every fifth row, and loses the rows it is told to."""

    usd_worst_case = 0.001
    fixed_usd_per_request = 0.0

    def __init__(self, lost: frozenset[str]) -> None:
        self.lost = lost

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        return [self._one(row) for row in rows.itertuples()]

    def _one(self, row: Any) -> Answer:
        if row.id in self.lost:
            return Answer(None, None, 0.0, error="connection reset")
        return Answer(row.label if int(row.id[1:]) % 5 else "Other words", 20.0, 0.0001)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        return [20.0] * len(rows)


def answered_by_a_toy(monkeypatch: pytest.MonkeyPatch, *lost: str) -> None:
    """Every candidate is answered by the toy, but for these rows."""

    @contextmanager
    def toy(*_: object):
        yield Toy(frozenset(lost))

    monkeypatch.setattr("leastwise.evaluating.stage.open_answerer", toy)


@pytest.fixture(params=[{}, {"unit_by": "talk"}, {"population": "this_set"}, {"split_by": "talk"}], ids=str)
def climb(request: pytest.FixtureRequest, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A climb whose prompt stage was measured on 400 rows, with and without rows that share a unit, as a sample and as
    a closed set; one row was lost.
    """
    labels = ["yes" if i % 3 else "no" for i in range(400)]
    rows = pd.DataFrame(
        {"id": [f"r{i}" for i in range(400)], "text": [f"text {i}" for i in range(400)], "label": labels}
    )
    rows.assign(talk=[f"c{i // 3}" for i in range(400)]).to_parquet(tmp_path / "gate.parquet")
    case: dict[str, Any] = {
        "name": "audited",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet"} | request.param,
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "adherence": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
        "allow_no_test": True,
    }
    work = opened(case_file(tmp_path, case))
    first = work.question.gate.rows["id"].iloc[7]

    answered_by_a_toy(monkeypatch, first)
    evaluate_stage(work, "prompt", [Candidate(stage="prompt", model="openai:gpt-4o-mini", venue="api")])
    return work


def stage(work: Workspace) -> StageRun:
    return work.run.latest("prompt")


def said_of(work: Workspace) -> list[str]:
    return differences(stage(work), use_case_above(stage(work)))


def test_what_was_logged_is_derived_again_by_run_climb_and_experiment(climb: Workspace):
    measured = stage(climb).figures
    assert measured["quality.lost"] == 1 and measured["quality.n"] > 50
    for named in (stage(climb).id, climb.run.id, "audited"):
        ending = audit_verdicts.fn(named)
        assert (ending.outcome, ending.checked, ending.differing, ending.exit_status) == ("agrees", 1, (), 0)


def test_an_interval_that_was_changed_afterwards_is_found(climb: Workspace):
    run = stage(climb)
    run.write({"quality.lower": 0.1, "quality.upper": 0.2})
    ending = audit_verdicts.fn("audited")
    assert (ending.outcome, ending.differing, ending.exit_status) == ("differs", (run.id,), 1)
    said = said_of(climb)
    assert said[0].startswith("logged ") and "the interval gives FAIL" in said[0]
    assert any("the answers give" in each for each in said)


def test_a_verdict_that_was_changed_afterwards_is_found(climb: Workspace):
    run = stage(climb)
    other = "FAIL" if run.tag("quality.verdict") != "FAIL" else "PASS"
    run.write(tags={"quality.verdict": other})
    assert audit_verdicts.fn(run.id).outcome == "differs"


def test_an_answer_that_was_changed_afterwards_is_found(climb: Workspace):
    run = stage(climb)
    table: Any = run.read_json("examples.json")
    answer = table["columns"].index("answer")
    for row in table["data"][:30]:
        row[answer] = "Other words"
    run.log_text(json.dumps(table), "examples.json")
    assert any("the answers give" in each for each in said_of(climb))


def test_what_holds_no_verdict_is_bad_input(climb: Workspace):
    for named in ("no-such-experiment", "leastwise-alpha-accounts"):
        with pytest.raises(BadInput, match="run_or_experiment"):
            audit_verdicts.fn(named)


ENDINGS: dict[str, tuple[dict[str, str], dict[str, float], str]] = {
    "another outcome": ({OUTCOME: "prompt"}, {}, "outcome: logged prompt, its stages give fine_tune"),
    "no outcome": ({OUTCOME: "none"}, {}, "outcome: logged none, its stages give fine_tune"),
    "not sure": ({SURE: "no"}, {}, "sure: logged no, its stages give yes"),
    "a figure on the test split": ({}, {"test.quality": 0.1}, "confirmed: logged yes, the test figures give no"),
    "confirmed": ({CONFIRMED: "no"}, {}, "confirmed: logged no, the test figures give yes"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_climb_that_ended_otherwise_than_its_stages_say_is_found(home: Path, tmp_path: Path, name: str) -> None:
    tags, figures, said = ENDINGS[name]
    work = climbed(tmp_path)
    ended = ClimbEnding("fine_tune", "it does", 0.5, 7.0, 90, 10, "yes", work.run.id)
    work.run.log_ending(ended, "api", "")
    assert ending_differences(work.run.again(), work.use_case) == []
    work.run.write(figures, tags)
    audit = audit_verdicts.fn("certified")
    assert (audit.outcome, audit.exit_status) == ("differs", 1) and work.run.id in audit.differing
    assert "1 of 1 climbs ended otherwise than their stages say" in audit.reason
    assert said in " ".join(ending_differences(work.run.again(), work.use_case))
