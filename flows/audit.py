"""Upkeep: derive verdicts again from what MLflow holds, and say whether they agree."""

from prefect import flow

from leastwise.ladder.ending import AuditEnding
from tasks.audit import audit_verdicts


@flow(name="audit")
def audit(run_or_experiment: str) -> AuditEnding:
    """Judge logged evaluations again, from MLflow alone: their intervals, and the answers behind them.

    Args:
        run_or_experiment: An MLflow run id (a climb with all its stages, or one stage), or a use case's name for all of
        it.
    """
    return audit_verdicts(run_or_experiment)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(audit)
