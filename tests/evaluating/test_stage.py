"""What is written beside a verdict: the student against its teacher, the data a run was given, what would decide more."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leastwise.answering.workspace import Workspace
from leastwise.evaluating import evaluation
from leastwise.evaluating.stage import _rank
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import Evaluation, judge
from leastwise.record import run_record, tracking
from leastwise.training import teaching
from leastwise.use_case.requirements import Requirement
from leastwise.record import reports
from tasks import console
from tasks.climb import open_climb

QUALITY = Requirement(name="quality", bound=0.8, margin=0.2)
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}


def measurement(lower: float, upper: float, n: int) -> Measurement:
    return Measurement(
        name="quality",
        estimate=(lower + upper) / 2,
        lower=lower,
        upper=upper,
        n=n,
        bound=0.8,
        margin=0.2,
        alpha_pass=0.01,
        alpha_fail=0.05,
    )


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    """An open climb over 60 gate rows, two a conversation."""
    labels = ["yes" if i % 3 else "no" for i in range(60)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "label": labels})
    rows.assign(talk=[f"c{i // 2}" for i in range(60)]).to_parquet(tmp_path / "gate.parquet")
    case: dict[str, Any] = {
        "name": "student-and-teacher",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet", "unit_by": "talk"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
        "allow_no_test": True,
    }
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(case))
    return Workspace.of(open_climb.fn(str(path)))


def logged(work: Workspace, stage: str, right: dict[str, bool]) -> str:
    """A stage run that passed quality, with an answer for each of the given rows."""
    candidate = Candidate(stage=stage, model="openai:gpt-4o-mini", venue="api")
    run = tracking.stage_run(work.client, work.climb, stage, f"key-{stage}")
    measured = Evaluation(
        stage=stage, candidate=candidate.key, gate_hash="g", measurements={"quality": measurement(0.7, 0.9, 50)}
    )
    run_record.log_candidate(work.client, run, candidate)
    run_record.log_evaluation(work.client, run.info.run_id, measured, {})
    rows = [
        {"id": row_id, "answer": "right" if is_right else "wrong", "score": float(is_right), "set": "gate"}
        for row_id, is_right in right.items()
    ]
    run_record.log_examples(work.client, run.info.run_id, evaluation.Measured(measured, {}, rows=rows))
    run_record.log_verdict(work.client, run.info.run_id, stage, judge(measured, (QUALITY,)), {}, "")
    work.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def test_a_student_is_compared_with_its_teacher_unit_by_unit_on_what_both_answered(work: Workspace) -> None:
    teacher = {f"r{i}": i % 10 != 0 for i in range(41)}  # wrong in one row of c0, c5, c10, c15; of c20 only r40
    student = {f"r{i}": i % 20 != 0 for i in range(60)}  # wrong in one row of c0, c10 and c20
    logged(work, "fine_tune", teacher)
    run_id = logged(work, "distill", student)
    teaching.compare_with_teacher.fn(work.climb.run_id, run_id)
    got = work.client.get_run(run_id).data.metrics
    assert got["teacher.n"] == 20  # conversations; c20 is the teacher's only in part
    assert got["teacher.quality"] == pytest.approx(1 - 4 * 0.5 / 20)
    assert got["teacher.difference"] == pytest.approx(2 * 0.5 / 20)
    assert got["teacher.agreement"] == pytest.approx(38 / 40)
    assert got["teacher.difference.lower"] < got["teacher.difference"] < got["teacher.difference.upper"]


def test_without_a_row_in_common_nothing_is_claimed(work: Workspace) -> None:
    logged(work, "fine_tune", {f"r{i}": True for i in range(30)})
    run_id = logged(work, "distill", {f"r{i}": True for i in range(30, 60)})
    teaching.compare_with_teacher.fn(work.climb.run_id, run_id)
    assert not [name for name in work.client.get_run(run_id).data.metrics if name.startswith("teacher.")]


def test_a_run_names_the_tables_it_was_given(work: Workspace) -> None:
    run = work.client.get_run(work.climb.run_id)
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "gate"
    assert work.tables.hashes["gate"].startswith(given.dataset.digest)


def test_the_gate_table_says_what_sharing_alpha_takes_in_examples() -> None:
    shared = Evaluation(stage="rag", candidate="c", gate_hash="g", measurements={"quality": measurement(0.5, 0.9, 100)})
    table = reports.gate_table(shared, judge(shared, (QUALITY,)), (QUALITY,), 0.05)
    assert "alpha 0.05" in table and "takes about 1.5 times the examples" in table
    whole = shared.measurements["quality"].model_copy(update={"alpha_pass": 0.05})
    alone = shared.model_copy(update={"measurements": {"quality": whole}})
    assert "times the examples" not in reports.gate_table(alone, judge(alone, (QUALITY,)), (QUALITY,), 0.05)


@pytest.mark.parametrize(("lower", "upper", "says_more"), [(0.4, 0.9, True), (0.5, 0.9, False), (0.65, 0.9, False)])
def test_only_what_is_undecided_and_not_between_floor_and_bound_says_how_many_more_examples_would_decide_it(
    lower: float, upper: float, says_more: bool
) -> None:
    measured = Evaluation(
        stage="prompt", candidate="c", gate_hash="g", measurements={"quality": measurement(lower, upper, 40)}
    )
    table = reports.gate_table(measured, judge(measured, (QUALITY,)), (QUALITY,), 0.05)
    assert ("more examples would decide quality" in table) is says_more


@pytest.mark.parametrize("change", [{"text_column": "talk"}, {"unit_by": None}, {"population": "this_set"}])
def test_other_columns_of_the_same_table_ask_another_question(work: Workspace, change: dict[str, Any]) -> None:
    data = work.use_case.data.model_copy(update=change)
    other = Workspace(work.client, work.use_case.model_copy(update={"data": data}), work.tables, work.climb)
    assert other.question != work.question


def test_of_two_tries_that_both_surely_fail_the_likelier_one_stands_for_the_stage() -> None:
    def tried(estimate: float) -> Any:
        m = measurement(0.0, 0.3, 25).model_copy(update={"estimate": estimate})
        measured = Evaluation(stage="prompt", candidate="c", gate_hash="g", measurements={"quality": m})
        candidate = Candidate(stage="prompt", model="openai:m", venue="api")
        return candidate, judge(measured, (QUALITY,)), evaluation.Measured(measured, {})

    weak, better = tried(0.02), tried(0.21)
    assert min([weak, better], key=_rank) is better
