"""Upkeep: would a cheaper level do by now, with the models that are in the use case file today?"""

from prefect import flow

from flows.prompt import prompt
from flows.rag import rag
from leastwise.record.upkeep import Upkeep
from leastwise.stores.caps import BudgetExceeded
from tasks.watch import open_rebaseline, recommend, stages_below, suffices

STAGES = {"prompt": prompt, "rag": rag}


@flow(name="rebaseline")
def rebaseline(use_case: str) -> Upkeep:
    """Measure the untrained stages below the champion's and recommend to step down or to stay; nothing is changed.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
    """
    run = open_rebaseline(use_case)
    tried: list[str] = []
    try:
        for stage in stages_below(run):
            tried.append(STAGES[stage](run))
            if suffices(tried[-1]):
                break
    except BudgetExceeded as limit:
        return recommend(run, tried, str(limit))
    return recommend(run, tried)


if __name__ == "__main__":
    from flows.command_line import run

    run(rebaseline)
