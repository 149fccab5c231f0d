"""Stage 6: a small student trained on the best passing teacher's answers."""

from prefect import flow

from leastwise.evaluating.stage import distill_tries, evaluate_stage
from leastwise.training import making, teaching
from tasks import data


@flow(name="distill")
def distill(climb: str) -> str:
    """Let the teacher label unlabelled text, train a student on it, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data.validate_unlabelled(climb)
    labels = making.teacher_labels(climb)
    data.validate_teacher_labels(climb, labels)
    student = making.distilled(climb, labels)
    run = evaluate_stage(climb, "distill", distill_tries(climb, student))
    teaching.compare_with_teacher(climb, run)
    return run


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(distill)
