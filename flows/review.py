"""Upkeep: put a judged stage's answers before people in MLflow, and bring back what they said."""

from prefect import flow

from leastwise.ladder.ending import UpkeepEnding
from tasks.review.answers import review_answers


@flow(name="review")
def review(use_case: str, mlflow_run_id: str, which: str = "sample") -> UpkeepEnding:
    """Make a review queue of a stage's answers where there is none, and write what people have said by now into tables.

    Grades serve as data.graded, corrected labels as labelled rows, each with who and when. Run it once to ask and again
    to collect.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        mlflow_run_id: MLflow run of a stage, or of a climb (its winner is meant).
        which: sample, the first 150 answers in seeded order, which stand for all; or wrong, the first 150 wrong ones.
    """
    return review_answers(use_case, mlflow_run_id, which)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(review)
