"""Stage 4: a LoRA adapter on open weights, trained here or at a host, behind a short prompt."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import data
from tasks import fine_tune as stage
from tasks.climb import alone_at


@flow(name="fine_tune")
def fine_tune(climb: RunId) -> RunId:
    """Validate the examples, train an adapter, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    with alone_at(climb, "fine_tune"):
        data.validate_training_data(climb)
        made = stage.fine_tune_model(climb)
        return stage.evaluate_fine_tune(climb, made)


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(fine_tune)
