"""Stage 5 (Level 4): continued pre-training of the base on the documents, then fine-tuning on it. Only when approved."""

from prefect import flow

from leastwise.evaluating.stage import evaluate_stage, tuned_candidate
from leastwise.training import making, pretraining
from tasks import data


@flow(name="pretrain")
def pretrain(climb: str) -> str:
    """Continue pre-training on the documents, fine-tune the result, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data.validate_documents(climb)
    data.validate_training_data(climb)
    base = making.pretrained(climb)
    tuned = making.fine_tuned(climb, base)
    run_id = evaluate_stage(climb, "pretrain", [tuned_candidate(climb, "pretrain", tuned, base)])
    pretraining.compare_with_fine_tuned(climb, run_id)
    return run_id


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(pretrain)
