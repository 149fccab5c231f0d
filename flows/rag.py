"""Stage 2: the same models with documents and labelled examples retrieved for every request."""

from prefect import flow

from leastwise.evaluating.stage import evaluate_stage, rag_candidates


@flow(name="rag")
def rag(climb: str) -> str:
    """Index documents and examples, retrieve for every request, and log the best; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    return evaluate_stage(climb, "rag", rag_candidates(climb))


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(rag)
