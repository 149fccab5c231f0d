"""Two flows for a worker's Jobs: one ends well and one does not."""

from prefect import flow


@flow
def ends_well() -> int:
    """Completed."""
    return 1


@flow
def ends_badly() -> int:
    """Failed."""
    raise ValueError("on purpose")
