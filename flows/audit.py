"""Upkeep: derive verdicts again from what MLflow holds, or from a certificate, and say whether they agree."""

from prefect import flow

from leastwise.ladder.ending import AuditEnding
from tasks.audit import audit_verdicts


@flow(name="audit")
def audit(run_or_experiment: str, signer: str = "") -> AuditEnding:
    """Judge logged evaluations again, from MLflow alone: their intervals, and the answers behind them. Or check the
    certificate of a climb from its file alone: its signature, and everything in it that can be derived again.

    Args:
        run_or_experiment: An MLflow run id (a climb with all its stages, or one stage), or a use case's name for all of
        it; or the path or URI of a certificate (a .json file).
        signer: Fingerprint of the key that must have signed the certificate; empty: any, and it is said which.
    """
    return audit_verdicts(run_or_experiment, signer)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(audit)
