"""A winner confirmed on the pool that measured it, for a climb whose own machine lacks the winner's engine.

Whether that is so is not decided here (see `flows.steps.stages`).
"""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from leastwise.run_id import RunId
from tasks.climb import alone_at
from tasks.climb import confirm as confirm_on_test


@flow(name="confirm")
def confirm(climb: RunId, outcome: str) -> State[None]:
    """Measure the winner on the test split; what came of it is the message of the state, which the climb reads.

    Args:
        climb: MLflow run id of the climb that was won.
        outcome: The stage that won it.
    """
    with alone_at(climb, "confirm"):
        return Completed(message=confirm_on_test(climb, outcome))
