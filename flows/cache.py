"""Stage 3: provider prompt caching and an exact response cache, judged on traffic with its real repetition."""

from prefect import flow

from leastwise.evaluating.stage import cache_candidates, evaluate_stage
from tasks import data


@flow(name="cache")
def cache(climb: str) -> str:
    """Put the parent behind caches and measure it on sampled traffic; gives back the stage's MLflow run.

    Args:
        climb: MLflow run id of the climb this stage belongs to.
    """
    data.validate_traffic(climb)
    return evaluate_stage(climb, "cache", cache_candidates(climb))


if __name__ == "__main__":
    from flows.command_line import run_stage

    run_stage(cache)
