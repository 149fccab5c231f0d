"""Stage 7: the winner's open weights behind the user's own endpoint, at whole machines a month."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import self_host as stage


@flow(name="self_host")
def self_host(climb: RunId) -> RunId:
    """Serve the best candidate's weights, smoke-test and measure them over HTTP; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    stage.smoke_test(climb)
    return stage.evaluate_self_host(climb)


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(self_host)
