"""Upkeep: make the champion's predecessor champion again."""

from prefect import flow

from leastwise.ladder.ending import UpkeepEnding
from tasks.promote import roll_back


@flow(name="rollback")
def rollback(use_case: str) -> UpkeepEnding:
    """Move the alias champion back to its predecessor in the promotion log; the log is written first.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
    """
    return roll_back(use_case)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(rollback)
