"""Deriving verdicts again from MLflow alone: does what was logged still give the verdict that was logged?

Two things are done for every judged run. The logged interval of every requirement is judged again by the use case's
requirements as they were logged; and the logged answers are scored again and put through the sequential test again,
which must give the very interval that was logged (quality and adherence; latency and cost are not in the table of
answers the way they were tested). It asks no model, spends nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from leastwise.evaluating.gate_tests import SequentialTest
from leastwise.evidence import MeanTest, Measurement, PredictionPoweredTest
from leastwise.ladder import Evaluation, Verdict, judge
from leastwise.metrics import Score
from leastwise.metrics.grades import Grades
from leastwise.metrics.task_metric import metric_of
from leastwise.record.stage_run import EXAMPLES, StageRun
from leastwise.rows import gate_rows
from leastwise.rows.gate_rows import unit_count, unit_scores, whole_units
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd


def differences(run: StageRun, use_case: UseCase) -> list[str]:
    """In words, what differs between a judged run as it was logged and as it is derived again; empty where nothing
    does.

    `use_case` is that of the climb or upkeep run above, as it was logged when that started.
    """
    evaluation = run.evaluation()
    verdict = judge(evaluation, use_case.gate_requirements)
    problems = []
    if run.verdict != verdict.outcome:
        problems = [f"logged {run.verdict}, the interval gives {verdict.outcome} ({verdict.reason})"]
    problems += _requirement_differences(run, verdict)
    return problems + list(_replay_differences(run, use_case, evaluation))


def _requirement_differences(run: StageRun, verdict: Verdict) -> list[str]:
    logged = {each.name: run.tag(f"{each.name}.verdict") for each in verdict.requirements}
    return [
        f"{each.name}: logged {logged[each.name]}, the interval gives {each.outcome}"
        for each in verdict.requirements
        if logged[each.name] not in ("", each.outcome)
    ]


def _replay_differences(run: StageRun, use_case: UseCase, evaluation: Evaluation) -> Iterator[str]:
    """Where the logged answers, scored and tested again in their order, do not give the logged interval."""
    if use_case.data.population != "future_traffic" or not evaluation.measurements:
        return
    answers = _answers(run, use_case)
    if answers is None:
        return
    grades = run.grades()
    for name in ("quality", "adherence"):
        logged = evaluation.measurements.get(name)
        if logged is None:
            continue
        again = _tested_again(use_case, answers, name, logged, grades if name == "quality" else None)
        if (again.n, again.lower, again.upper) != (logged.n, logged.lower, logged.upper):
            yield (
                f"{name}: logged [{logged.lower:.4f}, {logged.upper:.4f}] n={logged.n}, the answers give "
                f"[{again.lower:.4f}, {again.upper:.4f}] n={again.n}"
            )


def _answers(run: StageRun, use_case: UseCase) -> pd.DataFrame | None:
    """The gate rows' answers; None where a run has no table of them, or one without the units its rows share."""
    if not run.origin.has_file(EXAMPLES):
        return None
    answers = run.examples()
    if use_case.data.unit_by is None:
        return answers
    return answers.rename(columns={"unit": UNIT}) if "unit" in answers else None


def _tested_again(
    use_case: UseCase, answers: pd.DataFrame, name: str, logged: Measurement, grades: Grades | None
) -> SequentialTest:
    """The test of a requirement over logged answers; a judge's grades are taken as logged, for they were bought."""
    alphas = logged.alpha_pass, logged.alpha_fail
    test: SequentialTest = MeanTest(logged.bound, logged.margin, *alphas)
    if grades:
        test = PredictionPoweredTest(logged.bound, logged.margin, grades.human, grades.judge, *alphas)
    score = metric_of(use_case.task)
    for look in gate_rows.looks(answers):
        whole = look.iloc[whole_units(look, look["score"].isna().tolist())]
        scores = [score(answer, expected) for answer, expected in zip(whole["answer"], whole["expected"], strict=True)]
        values = whole["score"].tolist() if grades else [_value(each, name) for each in scores]
        test.add(unit_scores(whole, values))
        lost = unit_count(look) - unit_count(whole)
        if lost:
            test.add_lost(lost)
    return test


def _value(score: Score, name: str) -> float:
    return score.quality if name == "quality" else score.adherence
