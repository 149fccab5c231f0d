"""Upkeep: make what a climb, a stage or a retraining found the champion."""

from prefect import flow

from leastwise.ladder.ending import UpkeepEnding
from tasks.promote import promote_run


@flow(name="promote")
def promote(use_case: str, mlflow_run_id: str, word: str = "") -> UpkeepEnding:
    """Register a candidate that passed and move the alias champion to it; the promotion log is written first.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        mlflow_run_id: MLflow run of a climb (its winner is meant), of a stage, or of a retraining.
        word: Who takes a candidate that passed by an estimate, not surely, and why; needed only for such a one.
    """
    return promote_run(use_case, mlflow_run_id, word)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(promote)
