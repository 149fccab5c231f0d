"""Two candidates on the same rows: a student beside its teacher, and a challenger that must surely not be worse."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.comparison import PairedComparison, compare
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence import PairedTest
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage
from leastwise.use_case.task import Classification
from tasks.distill import compare_with_teacher
from tests.conversations import conversations
from tests.workspaces import log_stage, quality

TASK = Classification(instruction="Which?", labels=("yes", "no"))


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def logged(work: Workspace, stage: Stage, right: dict[str, bool]) -> StageRun:
    """A stage run that passed quality, with an answer for each of the given rows."""
    rows = [
        {"id": row_id, "answer": "right" if is_right else "wrong", "score": float(is_right), "set": "gate"}
        for row_id, is_right in right.items()
    ]
    return log_stage(
        work, Candidate(stage=stage, model="openai:gpt-4o-mini", venue="api"), quality(0.7, 0.9), rows=rows
    )


def test_a_student_is_compared_with_its_teacher_unit_by_unit_on_what_both_answered(work: Workspace) -> None:
    teacher = {f"r{i}": i % 10 != 0 for i in range(41)}  # wrong in one row of c0, c5, c10, c15; of c20 only r40
    student = {f"r{i}": i % 20 != 0 for i in range(60)}  # wrong in one row of c0, c10 and c20
    logged(work, "fine_tune", teacher)
    run = logged(work, "distill", student)
    compare_with_teacher.fn(work.run.id, run.id)
    got = run.again().figures
    assert got["teacher.n"] == 20  # conversations; c20 is the teacher's only in part
    assert got["teacher.quality"] == pytest.approx(1 - 4 * 0.5 / 20)
    assert got["teacher.difference"] == pytest.approx(2 * 0.5 / 20)
    assert got["teacher.agreement"] == pytest.approx(38 / 40)
    assert got["teacher.difference.lower"] < got["teacher.difference"] < got["teacher.difference.upper"]


def test_without_a_row_in_common_nothing_is_claimed(work: Workspace) -> None:
    logged(work, "fine_tune", {f"r{i}": True for i in range(30)})
    run = logged(work, "distill", {f"r{i}": True for i in range(30, 60)})
    compare_with_teacher.fn(work.run.id, run.id)
    assert not [name for name in run.again().figures if name.startswith("teacher.")]


@dataclass
class Toy(PlainAnswerer):
    """Answers right, wrong, or not at all, by row number."""

    wrong: range = range(0)
    lost: range = range(0)
    usd_worst_case: float = 0.0
    fixed_usd_per_request: float = 0.0

    def answer(self, rows):
        return [Answer(self.one(int(i), want), 1.0, 0.0) for i, want in zip(rows["id"], rows["label"], strict=True)]

    def one(self, number: int, want: str) -> str | None:
        if number in self.lost:
            return None
        return want if number not in self.wrong else "neither"

    def timed(self, rows, answers):
        return []


def gate_rows(n: int = 400) -> pd.DataFrame:
    return pd.DataFrame({"id": range(n), "text": [f"text {i}" for i in range(n)], "label": ["yes", "no"] * (n // 2)})


def compared(champion: Toy, challenger: Toy, n: int = 400) -> PairedComparison:
    return compare(ExactScorer(TASK), gate_rows(n), champion, challenger, PairedTest(0.1, 0.05, 0.05))


def test_a_challenger_that_answers_alike_is_surely_not_worse_before_the_rows_run_out():
    measured = compared(Toy(wrong=range(40)), Toy(wrong=range(40)))
    assert measured.outcome == "pass" and measured.n < 400 and measured.lower > -0.1
    assert measured.champion_quality == measured.challenger_quality == pytest.approx(1 - 40 / measured.n)


def test_a_challenger_that_errs_more_fails_and_one_seen_too_little_is_undecided():
    assert compared(Toy(), Toy(wrong=range(100))).outcome == "fail"
    assert compared(Toy(), Toy(), n=20).outcome == "undecided"


def test_rows_lost_for_either_are_no_evidence_of_being_as_good():
    measured = compared(Toy(lost=range(200)), Toy(), n=200)
    assert measured.outcome != "pass" and (measured.n, measured.lost) == (0, 25)  # and it stops there
    assert math.isnan(measured.difference)


@dataclass
class Counted(Toy):
    """One that counts what it is asked."""

    asked: int = 0

    def answer(self, rows):
        self.asked += len(rows)
        return super().answer(rows)


@pytest.mark.parametrize(
    ("champion", "challenger", "asked"),
    [
        (Counted(lost=range(400)), Counted(), (25, 0)),  # nothing is paid for beside what is lost already
        (Counted(), Counted(lost=range(400)), (25, 25)),
        (Counted(lost=range(30, 400)), Counted(), (50, 25)),
        (Counted(lost=range(1)), Counted(wrong=range(0, 400, 9)), (100, 100)),  # one lost row is borne
    ],
)
def test_a_comparison_stops_paying_once_an_outage_has_taken_its_conclusion(champion, challenger, asked) -> None:
    result = compared(champion, challenger)
    assert (champion.asked, challenger.asked) == asked
    assert result.too_many_lost is (asked != (100, 100))
