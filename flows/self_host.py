"""Stage 7: the winner's open weights behind the user's own endpoint, at whole machines a month."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import self_host as stage
from tasks.climb import alone_at
from tasks.serving import deploy as deploying


@flow(name="self_host")
def self_host(climb: RunId) -> RunId:
    """Serve the best candidate's weights, smoke-test and measure them over HTTP; what passes is put behind an endpoint,
    measured under load and left running where the use case says so. Gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    with alone_at(climb, "self_host"):
        run = stage.measured_already(climb)
        if run is None:
            stage.smoke_test(climb)
            run = stage.evaluate_self_host(climb)
        if deploying.may_be_deployed(climb, run):
            deploying.deploy(climb, run)
        return run


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(self_host)
