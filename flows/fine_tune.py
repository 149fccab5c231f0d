"""Stage 4: a LoRA adapter on open weights, behind a short prompt."""

from prefect import flow

from tasks import data_gate, making, stages


@flow(name="fine_tune")
def fine_tune(climb: str) -> str:
    """Validate the examples, train an adapter, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data_gate.validate_training_data(climb)
    tuned = making.fine_tuned(climb)
    return stages.evaluate_stage(climb, "fine_tune", [stages.tuned_candidate(climb, "fine_tune", tuned)])


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(fine_tune)
