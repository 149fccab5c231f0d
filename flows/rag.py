"""Stage 2: the same models with documents and labelled examples retrieved for every request."""

from prefect import flow

from tasks import stages


@flow(name="rag")
def rag(climb: str) -> str:
    """Index documents and examples, retrieve for every request, and log the best; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    return stages.evaluate_stage(climb, "rag", stages.rag_candidates(climb))


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(rag)
