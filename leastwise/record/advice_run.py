"""Advice before spending as one run in MLflow. It advises nothing (see `leastwise.ladder.advice`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.ladder.advice import Advice
from leastwise.record.client import experiment_id
from leastwise.record.run import KIND, NOTE, OUTCOME, PAID, REASON, SPENT, USE_CASE, RecordedRun
from leastwise.run_id import RunId
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_advice(client: MlflowClient, use_case: UseCase, advice: Advice, reason: str, note: str) -> RunId:
    """Write advice down; gives back its run."""
    name = f"advice · expected stop {advice.expected_stop or 'none'}"
    run = RecordedRun(client, client.create_run(experiment_id(client, use_case.name), run_name=name))
    figures = {SPENT: 0.0, PAID: 0.0, "usd.possible": advice.possible_usd}
    figures |= {f"usd.estimated.worst.{each.stage}": each.estimate_usd for each in advice.stages}
    expected = {each.stage: each.expected_usd for each in advice.stages}
    figures |= {f"usd.estimated.{stage}": usd for stage, usd in expected.items() if usd is not None}
    run.write(figures, {KIND: "advice", USE_CASE: use_case.name, OUTCOME: "advice", REASON: reason, NOTE: note})
    run.log_text(note, "advice.md")
    client.log_dict(run.id, advice.model_dump(mode="json"), "advice.json")
    run.close()
    return run.id
