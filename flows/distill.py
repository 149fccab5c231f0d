"""Stage 6: a small student trained on the best passing teacher's answers."""

from prefect import flow

from tasks import data_gate, making, stages, teaching


@flow(name="distill")
def distill(climb: str) -> str:
    """Let the teacher label unlabelled text, train a student on it, measure it; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data_gate.validate_unlabelled(climb)
    labels = making.teacher_labels(climb)
    data_gate.validate_teacher_labels(climb, labels)
    student = making.distilled(climb, labels)
    run = stages.evaluate_stage(climb, "distill", stages.distill_tries(climb, student))
    teaching.compare_with_teacher(climb, run)
    return run


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(distill)
