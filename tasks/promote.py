"""Promoting a measured candidate and taking a promotion back: what may move the champion, and what is said of it.

Only what passed is promoted: a stage run whose verdict is PASS when judged again from the record (or UNDECIDED that was
resolved to count as one), or a challenger that was surely not worse. How aliases move is in `leastwise.record.registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from leastwise.errors import BadInput
from leastwise.record import registry, run_record, tracking
from leastwise.record.upkeep import Upkeep
from leastwise.rows.use_case_file import load
from leastwise.use_case import LADDER
from tasks import console

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@task(name="promote")
def promote_run(use_case: str, run_id: str) -> Upkeep:
    """Register the candidate of a climb, stage or retraining and make it the champion."""
    name, client = load(use_case).name, tracking.connect()
    run = _measured_run(client, name, run_id)
    reason = _leave(client, run)
    version = registry.register(client, name, run.info.run_id)
    move = registry.promote(client, name, version, reason)
    if move is None:
        return _told("unchanged", f"version {version} is the champion already", run.info.run_id)
    return _told("promoted", f"champion: version {move.before or 'none'} → {version} ({reason})", move.run_id)


@task(name="roll back")
def roll_back(use_case: str) -> Upkeep:
    """Make the champion's predecessor champion again."""
    name, client = load(use_case).name, tracking.connect()
    move = registry.rollback(client, name, "rollback was run")
    return _told("rolled_back", f"champion: version {move.before} → {move.after}", move.run_id)


def _told(outcome: str, reason: str, run_id: str) -> Upkeep:
    console.say(f"{outcome}: {reason}")
    return Upkeep(outcome, reason, 0.0, 0, run_id)


def _measured_run(client: MlflowClient, name: str, run_id: str) -> Run:
    """The run that measured the candidate: the run itself, or the winning stage of a climb."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise BadInput(f"mlflow_run_id: there is no run {run_id}; take the mlflow_run_id a flow printed") from None
    found = client.get_experiment_by_name(name)
    if found is None or run.info.experiment_id != found.experiment_id:
        raise BadInput(f"mlflow_run_id: run {run_id} is not in the experiment {name}; name a run of that use case")
    if run.data.tags.get("leastwise.kind") != "ladder":
        return run
    outcome = run.data.tags.get("leastwise.outcome", "not finished")
    if outcome not in LADDER:
        raise BadInput(f"mlflow_run_id: the climb {run_id} ended as {outcome}, so it has no winner to promote")
    return tracking.latest_run(client, tracking.climb_of(client, run_id), outcome)


def _leave(client: MlflowClient, run: Run) -> str:
    """Why this run may be promoted; BadInput where it may not."""
    tags, run_id = run.data.tags, run.info.run_id
    kind = tags.get("leastwise.kind")
    if kind not in ("stage", "retrain"):
        raise BadInput(
            f"mlflow_run_id: run {run_id} is a {kind or 'foreign'} run; name a climb, a stage or a retraining"
        )
    if kind == "retrain":
        verdict, estimated = tags.get("leastwise.verdict", "unfinished"), False
    else:
        asked = tracking.load_use_case(client, tags["mlflow.parentRunId"]).gate_requirements
        verdict = run_record.judge_logged(client, run_id, asked)[1].outcome
        estimated = tags.get("leastwise.resolution") == "pass"
    if verdict != "PASS" and not estimated:
        raise BadInput(f"mlflow_run_id: run {run_id} is {verdict}, and only what passed is promoted; climb on")
    return tags.get("leastwise.reason", "passed")
