"""Stage 2: the same models with documents and labelled examples retrieved for every request."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import rag as stage


@flow(name="rag")
def rag(climb: RunId) -> RunId:
    """Index documents and examples, retrieve for every request, and log the best; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    return stage.evaluate_rag(climb)


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(rag)
