"""Stage 3: provider prompt caching and an exact response cache, judged on traffic with its real repetition."""

from prefect import flow

from leastwise.run_id import RunId
from tasks import cache as stage
from tasks import data


@flow(name="cache")
def cache(climb: RunId) -> RunId:
    """Put the parent behind caches and measure it on sampled traffic; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data.validate_traffic(climb)
    return stage.evaluate_cache(climb)


if __name__ == "__main__":
    from flows.running.command_line import run_stage_alone

    run_stage_alone(cache)
