"""Promoting a measured candidate and taking a promotion back: what may move the champion, and what is said of it.

Only what passed every requirement is promoted: a stage run whose verdict is PASS when judged again from the record, or
a challenger that passed the gate itself and was surely not worse. What passed by an estimate, not surely, is promoted
only on a person's word, which the log keeps. How aliases move is in `leastwise.record.registry`.
"""

from __future__ import annotations

from prefect import task

from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun
from leastwise.record.judged_runs import measured_run
from leastwise.record.published.moves import CHAMPION
from leastwise.record.registry import Registry
from leastwise.record.run import OVERRIDE
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import UpkeepRun
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.serving.cluster.kubernetes import Refused
from leastwise.serving.cluster.leading import Lead
from leastwise.serving.cluster.rollout import NotReady
from leastwise.serving.registering import register
from leastwise.use_case import UseCase
from tasks.session.console import say
from tasks.session.workspace import open_workspace


@task(name="promote")
def promote_run(use_case: str, run_id: str, word: str = "") -> UpkeepEnding:
    """Register the candidate of a climb, stage or retraining and make it the champion.

    `word`: who takes a candidate that the gate was not sure of, and why; BadInput where it is needed and missing.
    """
    client, case = connect(), load(use_case)
    name = case.name
    run = measured_run(client, name, run_id)
    reason = _leave(run, word.strip())
    registry = Registry(client, name)
    version = register(open_workspace(RunId(run.parent_id or run.id)), run)
    move = registry.promote(version, reason)
    if move is None:
        return _ended("unchanged", f"version {version} is the champion already{_lead_to(case, version)}", run.id)
    words = f"champion: version {move.before or 'none'} → {version} ({reason}){_lead_to(case, version)}"
    return _ended("promoted", words, move.run_id)


@task(name="roll back")
def roll_back(use_case: str) -> UpkeepEnding:
    """Make the champion's predecessor champion again; in a cluster callers are led back first, by one change."""
    case = load(use_case)
    registry = Registry(connect(), case.name)
    if case.hosting.endpoint == "cluster" and (lead := Lead.of(case.hosting.cluster, case.name)).line().serving:
        return _led_back(lead, registry)
    move = registry.rollback("rollback was run")
    return _ended("rolled_back", f"champion: version {move.before} → {move.after}", move.run_id)


def _led_back(lead: Lead, registry: Registry) -> UpkeepEnding:
    """Callers on what served before, and the alias with them where it names what they are led away from."""
    line = lead.line()
    was_cut_off = bool(line.refused) and not line.former and lead.version_of(line.refused) == _champion(registry)
    line = line if was_cut_off else lead.back()
    words, away = f"{lead.url}: {line.refused} → {line.serving}", lead.version_of(line.refused)
    if not away or away != _champion(registry) or not registry.predecessor():
        lead.tidy()
        run_id = registry.run_of(away) if away else None
        return _ended("rolled_back", f"{words}; the champion stays version {_champion(registry) or 'none'}", run_id)
    move = registry.rollback("rollback was run")
    lead.tidy()
    return _ended("rolled_back", f"{words}; champion: version {move.before} → {move.after}", move.run_id)


def _champion(registry: Registry) -> str:
    return registry.aliases().get(CHAMPION, "")


def _lead_to(case: UseCase, version: str) -> str:
    """Where callers in a cluster are led once a version is champion, in words; empty where there is no cluster."""
    if case.hosting.endpoint != "cluster":
        return ""
    try:
        lead = Lead.of(case.hosting.cluster, case.name)
        app, serving = lead.app_of(version), lead.line().serving
        if app and app != serving:
            lead.awake(app)
            lead.to(app)
    except (BadInput, Refused, NotReady) as error:  # the alias is moved
        return f"; callers in the cluster are not led to it ({error}): promote it once more where that can be done"
    if app:
        return f"; {lead.url} leads to it"
    return f"; no pods of it are in the cluster, so {serving or 'nothing'} goes on serving at {lead.url}"


def _ended(outcome: str, reason: str, run_id: str | None) -> UpkeepEnding:
    say(f"{outcome}: {reason}")
    return UpkeepEnding(outcome, reason, 0.0, 0, RunId(run_id or ""))


def _leave(run: StageRun, word: str) -> str:
    """Why this run may be promoted; BadInput where it may not."""
    if run.kind not in ("stage", "reference", "retrain"):
        raise BadInput(
            f"mlflow_run_id: run {run.id} is a {run.kind or 'foreign'} run; name a climb, a stage or a retraining"
        )
    verdict = _challenger(run) if run.kind == "retrain" else _judged_again(run)
    if verdict == "PASS":
        return run.reason or "passed"
    if verdict != "UNDECIDED" or run.resolution != "pass":
        raise BadInput(f"mlflow_run_id: run {run.id} is {verdict}, and only what passed is promoted; climb on")
    override = run.tag(OVERRIDE)
    if not (override or word):
        raise BadInput(
            f"mlflow_run_id: run {run.id} passed by the plain estimate, not surely ({run.reason}); give more gate rows "
            "and climb again, or say as a third argument who takes it all the same, and why: "
            f'python -m flows.promote USE_CASE {run.id} "NAME: WHY"'
        )
    return f"not surely, on a person's word ({word or override}): {run.reason}"


def _judged_again(run: StageRun) -> str:
    """The verdict on a stage over every requirement, from the record."""
    requirements = ClimbRun.read(run.client, run.parent_id or "").use_case().gate_requirements
    return run.judged(requirements).verdict.outcome


def _challenger(run: StageRun) -> str:
    """The verdict on a retraining: of the comparison, and of the gate the challenger itself went through."""
    if run.verdict != "PASS":
        return run.verdict or "unfinished"
    measured = [each for each in UpkeepRun(run.client, run.run).stage_runs() if each.is_judged]
    return _judged_again(measured[-1]) if measured else "not measured at the gate"
