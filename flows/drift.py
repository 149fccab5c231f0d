"""Upkeep: does a window of recent inputs still look like the rows the champion was judged on?"""

from prefect import flow

from flows.running import revival
from leastwise.ladder.ending import UpkeepEnding
from tasks.drift import watch_drift


@flow(name="drift")
def drift(use_case: str, window: str) -> UpkeepEnding:
    """Compare recent inputs with the reference and end as quiet or drift; nothing is changed.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        window: URI of a table of recent inputs, with the use case's text column; labels are not needed.
    """
    return revival.opened(watch_drift, use_case, window)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(drift)
