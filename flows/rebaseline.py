"""Upkeep: would a cheaper level do by now, with the models that are in the use case file today?"""

from prefect import flow

from flows.prompt import prompt
from flows.rag import rag
from tasks import watching
from tasks.ledger import BudgetExceeded
from tasks.upkeep import Upkeep

STAGES = {"prompt": prompt, "rag": rag}


@flow(name="rebaseline")
def rebaseline(use_case: str) -> Upkeep:
    """Measure the untrained stages below the champion's and recommend to step down or to stay; nothing is changed.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
    """
    run = watching.open_rebaseline(use_case)
    tried: list[str] = []
    try:
        for stage in watching.stages_below(run):
            tried.append(STAGES[stage](run))
            if watching.suffices(tried[-1]):
                break
    except BudgetExceeded as limit:
        return watching.recommend(run, tried, str(limit))
    return watching.recommend(run, tried)


if __name__ == "__main__":
    from flows.command_line import run

    run(rebaseline)
