"""Stage 1: the models of the use case as they are, cheapest first, unconstrained and constrained."""

from prefect import flow

from leastwise.evaluating.stage import evaluate_stage, prompt_tries


@flow(name="prompt")
def prompt(climb: str) -> str:
    """Prompt every allowed model and log the best; gives back the MLflow run of the stage.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    return evaluate_stage(climb, "prompt", prompt_tries(climb))


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(prompt)
