"""Deriving verdicts again from MLflow alone: does what was logged still give the verdict that was logged?

Two things are done for every judged run. The logged interval of every requirement is judged again by the use case's
requirements as they were logged; and the logged answers are scored again and put through the sequential test again, which
must give the very interval that was logged (quality and adherence; latency and cost are not in the table of answers the
way they were tested). It asks no model, spends nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import task

from leastwise import evidence
from leastwise.errors import BadInput
from leastwise.evidence.measurement import Measurement
from leastwise.evidence.prediction_powered import PredictionPoweredTest
from leastwise.ladder.gate import Evaluation, Verdict, judge
from leastwise.metrics.task_metric import metric_of
from leastwise.record import run_record, tracking
from leastwise.rows import gate_rows
from leastwise.rows.gate_rows import unit_count, unit_scores, whole_units
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from tasks import console

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

JUDGED = frozenset({"stage", "try", "reference"})


@dataclass(frozen=True)
class AuditEnding:
    """What an audit came to; its fields are the JSON line a command prints."""

    outcome: str
    reason: str
    checked: int
    differing: tuple[str, ...]
    usd_spent: float = 0.0
    calls_paid: int = 0

    @property
    def exit_status(self) -> int:
        """0 where every verdict agrees, 1 where one differs."""
        return 0 if self.outcome == "agrees" else 1


@task(name="audit")
def audit(run_or_experiment: str) -> AuditEnding:
    """Judge one run, a climb's runs, or a whole experiment (a use case's name) again."""
    client = tracking.connect()
    found = list(_judged_runs(client, run_or_experiment))
    if not found:
        raise BadInput(
            f"run_or_experiment: {run_or_experiment} holds no run with a verdict; name a climb, stage or use case"
        )
    lines, differing = [], []
    for run in found:
        problems = differences(client, run)
        verdict = f"{run.data.tags.get('leastwise.verdict')}"
        lines.append(f"| {run.info.run_name} | {verdict} | {'; '.join(problems) or 'agrees'} |")
        console.say(f"{'✘' if problems else '✔'} {run.info.run_id[:8]}  {run.info.run_name}  {'; '.join(problems)}")
        differing += [str(run.info.run_id)] if problems else []
    console.publish_markdown("audit", "| run | verdict | judged again |\n|---|---|---|\n" + "\n".join(lines))
    outcome = "differs" if differing else "agrees"
    reason = f"{len(found) - len(differing)} of {len(found)} verdicts are derived again from MLflow as they were logged"
    return AuditEnding(outcome, reason, len(found), tuple(differing))


def differences(client: MlflowClient, run: Run) -> list[str]:
    """In words, what differs between a judged run as it was logged and as it is derived again; empty where nothing does."""
    tags, use_case = run.data.tags, _use_case_of(client, run)
    evaluation = run_record.read_evaluation(run)
    verdict = judge(evaluation, use_case.gate_requirements)
    problems = (
        []
        if tags["leastwise.verdict"] == verdict.outcome
        else [f"logged {tags['leastwise.verdict']}, the interval gives {verdict.outcome} ({verdict.reason})"]
    )
    problems += _requirement_differences(tags, verdict)
    return problems + list(_replay_differences(client, run, use_case, evaluation))


def _judged_runs(client: MlflowClient, wanted: str) -> Iterator[Run]:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(wanted)
    if experiment is not None:
        everything = client.search_runs(
            [experiment.experiment_id], max_results=5000, order_by=["attributes.start_time ASC"]
        )
        yield from filter(_is_judged, everything)
        return
    try:
        run = client.get_run(wanted)
    except MlflowException:
        message = f"run_or_experiment: {wanted} is neither a run id nor an experiment in {tracking.tracking_uri()}"
        raise BadInput(f"{message}; take the mlflow_run_id a flow printed, or a use case's name") from None
    if _is_judged(run):
        yield run
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    for child in client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"]):
        yield from _judged_runs(client, child.info.run_id)


def _is_judged(run: Run) -> bool:
    tags = run.data.tags
    return tags.get("leastwise.kind") in JUDGED and tags.get("leastwise.verdict") not in (None, "SKIPPED")


def _use_case_of(client: MlflowClient, run: Run) -> UseCase:
    """The use case of the climb or upkeep run above, as it was logged when that started."""
    while parent := run.data.tags.get("mlflow.parentRunId"):
        run = client.get_run(parent)
    return tracking.load_use_case(client, run.info.run_id)


def _requirement_differences(tags: dict[str, str], verdict: Verdict) -> list[str]:
    logged = {each.name: tags.get(f"{each.name}.verdict") for each in verdict.requirements}
    return [
        f"{each.name}: logged {logged[each.name]}, the interval gives {each.outcome}"
        for each in verdict.requirements
        if logged[each.name] not in (None, each.outcome)
    ]


def _replay_differences(client: MlflowClient, run: Run, use_case: UseCase, evaluation: Evaluation) -> Iterator[str]:
    """Where the logged answers, scored and tested again in their order, do not give the logged interval."""
    if use_case.data.population != "future_traffic" or not evaluation.measurements:
        return
    answers = _answers(client, run, use_case)
    if answers is None:
        return
    grades = _grades(client, run)
    for name in ("quality", "adherence"):
        logged = evaluation.measurements.get(name)
        if logged is None:
            continue
        again = _tested_again(use_case, answers, name, logged, grades)
        if (again.n, again.lower, again.upper) != (logged.n, logged.lower, logged.upper):
            yield (
                f"{name}: logged [{logged.lower:.4f}, {logged.upper:.4f}] n={logged.n}, the answers give "
                f"[{again.lower:.4f}, {again.upper:.4f}] n={again.n}"
            )


def _answers(client: MlflowClient, run: Run, use_case: UseCase) -> pd.DataFrame | None:
    """The gate rows' answers; None where a run has no table of them, or one without the units its rows share."""
    origin = str(run.data.tags.get("leastwise.reused_from") or run.info.run_id)
    if not any(each.path == "examples.json" for each in client.list_artifacts(origin)):
        return None
    answers = run_record.read_examples(client, origin)
    if use_case.data.unit_by is None:
        return answers
    return answers.rename(columns={"unit": UNIT}) if "unit" in answers else None


def _tested_again(
    use_case: UseCase, answers: pd.DataFrame, name: str, logged: Measurement, grades: dict[str, list[float]] | None
) -> Any:
    """The test of a requirement over logged answers; a judge's grades are taken as logged, for they were bought."""
    alphas = logged.alpha_pass, logged.alpha_fail
    is_graded = grades is not None and name == "quality"
    test: Any = evidence.MeanTest(logged.bound, logged.margin, *alphas)
    if is_graded and grades:
        test = PredictionPoweredTest(logged.bound, logged.margin, grades["human"], grades["judge"], *alphas)
    score = metric_of(use_case.task)
    for look in gate_rows.looks(answers):
        whole = look.iloc[whole_units(look, look["score"].isna().tolist())]
        scores = [score(answer, expected) for answer, expected in zip(whole["answer"], whole["expected"], strict=True)]
        values = whole["score"].tolist() if is_graded else [getattr(each, name) for each in scores]
        test.add(unit_scores(whole, values))
        lost = unit_count(look) - unit_count(whole)
        if lost:
            test.add_lost(lost)
    return test


def _grades(client: MlflowClient, run: Run) -> dict[str, list[float]] | None:
    origin = str(run.data.tags.get("leastwise.reused_from") or run.info.run_id)
    if not any(each.path == run_record.GRADES for each in client.list_artifacts(origin)):
        return None
    grades: dict[str, list[float]] = run_record.read_json(client, origin, run_record.GRADES)
    return grades
