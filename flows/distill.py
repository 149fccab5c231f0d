"""Stage 6: a small student trained on the best passing teacher's answers."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import data
from tasks import distill as stage
from tasks.climb import alone_at


@flow(name="distill")
def distill(climb: RunId) -> RunId:
    """Let the teacher label unlabelled text, train a student on it, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    with alone_at(climb, "distill"):
        data.validate_unlabelled(climb)
        labels = stage.label_with_teacher(climb)
        data.validate_teacher_labels(climb, labels)
        student = stage.distill_student(climb, labels)
        run_id = stage.evaluate_distill(climb, student)
        stage.compare_with_teacher(climb, run_id)
        return run_id


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(distill)
