"""Stage 4: a LoRA adapter on open weights, behind a short prompt."""

from prefect import flow

from leastwise.evaluating.stage import evaluate_stage, tuned_candidate
from leastwise.training import making
from tasks import data


@flow(name="fine_tune")
def fine_tune(climb: str) -> str:
    """Validate the examples, train an adapter, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data.validate_training_data(climb)
    tuned = making.fine_tuned(climb)
    return evaluate_stage(climb, "fine_tune", [tuned_candidate(climb, "fine_tune", tuned)])


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(fine_tune)
