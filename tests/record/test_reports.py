"""What is written beside a verdict: what sharing alpha takes, and how many more examples would decide."""

from typing import Any

import pytest

from leastwise.ladder import Record
from leastwise.ladder.ending import ClimbEnding
from leastwise.ladder.gate import judge
from leastwise.record import reports
from leastwise.record.reports import answered_by
from leastwise.run_id import RunId
from leastwise.use_case.requirements import Requirement
from tests.toys import use_case
from tests.workspaces import evaluation_of, quality

QUALITY = Requirement(name="quality", bound=0.8, margin=0.2)


def test_the_models_that_answered_are_listed_with_their_rows_and_rows_without_a_name_are_counted_apart() -> None:
    rows: list[Any] = [{"error": None, "answered_by": "b"}] * 3 + [{"error": None, "answered_by": "a"}] * 1_200
    assert answered_by(rows) == "a (1,200), b (3)"
    assert answered_by([*rows, {"error": None}, {"error": "lost"}]) == "a (1,200), b (3), not told (1)"
    assert answered_by([{"error": None}, {"error": "lost", "answered_by": "c"}]) == ""


def test_the_gate_table_says_what_sharing_alpha_takes_in_examples() -> None:
    shared = evaluation_of("rag", quality(0.5, 0.9, 100))
    table = reports.gate_table(shared, judge(shared, (QUALITY,)), (QUALITY,), 0.05)
    assert "alpha 0.05" in table and "takes about 1.5 times the examples" in table
    whole = shared.measurements["quality"].model_copy(update={"alpha_pass": 0.05})
    alone = shared.model_copy(update={"measurements": {"quality": whole}})
    assert "times the examples" not in reports.gate_table(alone, judge(alone, (QUALITY,)), (QUALITY,), 0.05)


@pytest.mark.parametrize(("lower", "upper", "says_more"), [(0.4, 0.9, True), (0.5, 0.9, False), (0.65, 0.9, False)])
def test_only_what_is_undecided_and_not_between_floor_and_bound_says_how_many_more_examples_would_decide_it(
    lower: float, upper: float, says_more: bool
) -> None:
    measured = evaluation_of("prompt", quality(lower, upper, 40))
    table = reports.gate_table(measured, judge(measured, (QUALITY,)), (QUALITY,), 0.05)
    assert ("more examples would decide quality" in table) is says_more


def _ending(outcome: str, **fields: Any) -> ClimbEnding:
    usual = {"usd_spent": 0.5, "usd_avoided": 2.0, "calls_paid": 25, "calls_cached": 0, "confirmed": "yes"}
    reason = "quality 0.9, surely ≥ 0.6; adherence 1, surely ≥ 0.9"
    return ClimbEnding(**{"outcome": outcome, "reason": reason, "mlflow_run_id": RunId("r"), **usual, **fields})


def _record(stage: Any, low: float, high: float) -> Record:
    measured = evaluation_of(stage, quality(low, high))
    return Record(stage=stage, evaluation=measured, verdict=judge(measured, (QUALITY,)))


HISTORY = [
    _record("reference", 0.70, 0.80),
    _record("prompt", 0.30, 0.50),
    Record(stage="cache", skipped="nothing to cache | yet"),
    _record("rag", 0.85, 0.95),
]


def test_a_description_begins_with_its_table_for_only_its_top_is_seen_unopened() -> None:
    measured = evaluation_of("rag", quality(0.85, 0.95))
    gate = reports.gate_table(measured, judge(measured, (QUALITY,)), (QUALITY,), 0.05)
    ladder = reports.ladder_note(use_case({"quality": (0.8, 0.2)}), HISTORY, _ending("rag"))
    assert gate.startswith("| requirement | verdict |") and ladder.startswith("| stage | verdict | quality ≥ 0.800 |")
    assert "| quality | PASS |" in gate.splitlines()[2]


def test_the_description_of_a_climb_is_a_row_a_stage_and_a_point_a_sentence_and_no_paragraph() -> None:
    lines = reports.ladder_note(use_case({"quality": (0.8, 0.2)}), HISTORY, _ending("rag")).splitlines()
    assert lines[2] == "| reference | (no LLM) | 0.750 n=50 |  |"
    assert lines[3] == "| prompt | FAIL | 0.400 FAIL n=50 |  |"
    assert lines[4] == r"| cache | SKIPPED |  | nothing to cache \| yet |"
    assert lines[5] == "| rag | PASS | 0.900 PASS n=50 |  |"
    assert "- adherence 1, surely ≥ 0.9" in lines and "- Confirmed on test: yes." in lines
    assert all(len(line) < 120 for line in lines)


@pytest.mark.parametrize("fields", [{}, {"confirmed": "no"}, {"sure": False}])
@pytest.mark.parametrize("outcome", ["rag", "reference", "none", "budget"])
def test_the_description_of_a_climb_says_what_the_console_says(outcome: str, fields: Any) -> None:
    case, ending = use_case({"quality": (0.8, 0.2)}), _ending(outcome, **fields)
    note = reports.ladder_note(case, HISTORY, ending)
    for sentence in reports.decision(case, ending, HISTORY).replace("; ", ". ").split(". "):
        assert sentence.rstrip(".") in note
