"""Promoting a measured candidate and taking a promotion back: what may move the champion, and what is said of it.

Only what passed is promoted: a stage run whose verdict is PASS when judged again from the record (or UNDECIDED that was
resolved to count as one), or a challenger that was surely not worse. How aliases move is in
`leastwise.record.registry`.
"""

from __future__ import annotations

from prefect import task

from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun
from leastwise.record.judged_runs import measured_run
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from tasks.session.console import say


@task(name="promote")
def promote_run(use_case: str, run_id: str) -> UpkeepEnding:
    """Register the candidate of a climb, stage or retraining and make it the champion."""
    client, name = connect(), load(use_case).name
    run = measured_run(client, name, run_id)
    reason = _leave(run)
    registry = Registry(client, name)
    version = registry.register(run)
    move = registry.promote(version, reason)
    if move is None:
        return _ended("unchanged", f"version {version} is the champion already", run.id)
    return _ended("promoted", f"champion: version {move.before or 'none'} → {version} ({reason})", move.run_id)


@task(name="roll back")
def roll_back(use_case: str) -> UpkeepEnding:
    """Make the champion's predecessor champion again."""
    move = Registry(connect(), load(use_case).name).rollback("rollback was run")
    return _ended("rolled_back", f"champion: version {move.before} → {move.after}", move.run_id)


def _ended(outcome: str, reason: str, run_id: RunId) -> UpkeepEnding:
    say(f"{outcome}: {reason}")
    return UpkeepEnding(outcome, reason, 0.0, 0, run_id)


def _leave(run: StageRun) -> str:
    """Why this run may be promoted; BadInput where it may not."""
    if run.kind not in ("stage", "retrain"):
        raise BadInput(
            f"mlflow_run_id: run {run.id} is a {run.kind or 'foreign'} run; name a climb, a stage or a retraining"
        )
    verdict, by_estimate = run.verdict or "unfinished", False
    if run.kind == "stage":
        requirements = ClimbRun.read(run.client, run.parent_id or "").use_case().gate_requirements
        verdict, by_estimate = run.judged(requirements).verdict.outcome, run.resolution == "pass"
    if verdict != "PASS" and not by_estimate:
        raise BadInput(f"mlflow_run_id: run {run.id} is {verdict}, and only what passed is promoted; climb on")
    return run.reason or "passed"
