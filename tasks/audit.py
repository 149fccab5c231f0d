"""Auditing: every verdict of a run, a climb or a use case derived again from MLflow alone.

How is in `leastwise.evaluating.audit`. It asks no model, spends nothing and writes nothing.
"""

from __future__ import annotations

from prefect import task

from leastwise.errors import BadInput
from leastwise.evaluating.audit import differences
from leastwise.ladder.ending import AuditEnding
from leastwise.record.client import connect
from leastwise.record.judged_runs import judged_runs, use_case_above
from tasks.session.artifacts import publish_markdown
from tasks.session.console import say


@task(name="audit")
def audit_verdicts(run_or_experiment: str) -> AuditEnding:
    """Judge one run, a climb's runs, or a whole experiment (a use case's name) again."""
    runs = list(judged_runs(connect(), run_or_experiment))
    if not runs:
        raise BadInput(
            f"run_or_experiment: {run_or_experiment} holds no run with a verdict; name a climb, stage or use case"
        )
    lines, differing = [], []
    for run in runs:
        problems = differences(run, use_case_above(run))
        lines.append(f"| {run.name} | {run.verdict} | {'; '.join(problems) or 'agrees'} |")
        say(f"{'✘' if problems else '✔'} {run.id[:8]}  {run.name}  {'; '.join(problems)}")
        differing += [run.id] if problems else []
    publish_markdown("audit", "| run | verdict | judged again |\n|---|---|---|\n" + "\n".join(lines))
    outcome = "differs" if differing else "agrees"
    reason = f"{len(runs) - len(differing)} of {len(runs)} verdicts are derived again from MLflow as they were logged"
    return AuditEnding(outcome, reason, len(runs), tuple(differing))
