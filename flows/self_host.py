"""Stage 7: the winner's open weights behind the user's own endpoint, at whole machines a month."""

from prefect import flow

from leastwise.evaluating.stage import evaluate_stage, self_host_candidates, smoke_test


@flow(name="self_host")
def self_host(climb: str) -> str:
    """Serve the best candidate's weights, smoke-test and measure them over HTTP; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    smoke_test(climb)
    return evaluate_stage(climb, "self_host", self_host_candidates(climb))


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(self_host)
