"""Stage 5 (Level 4): continued pre-training of the base on the documents, then fine-tuning on it. Only when
approved.
"""

from prefect import flow

from leastwise.run_id import RunId
from tasks import data, fine_tune
from tasks import pretrain as stage
from tasks.climb import alone_at


@flow(name="pretrain")
def pretrain(climb: RunId) -> RunId:
    """Continue pre-training on the documents, fine-tune the result, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    with alone_at(climb, "pretrain"):
        data.validate_documents(climb)
        data.validate_training_data(climb)
        base = stage.continue_pretraining(climb)
        adapter = fine_tune.fine_tune_adapter(climb, base)
        run_id = stage.evaluate_pretrain(climb, adapter, base)
        stage.compare_with_fine_tuned(climb, run_id)
        return run_id


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(pretrain)
