"""Stage 1: the models of the use case as they are, cheapest first, unconstrained and constrained."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import prompt as stage


@flow(name="prompt")
def prompt(climb: RunId) -> RunId:
    """Prompt every allowed model and log the best; gives back the MLflow run of the stage.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    return stage.evaluate_prompt(climb)


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(prompt)
