"""Upkeep: would a cheaper level do by now, with the models that are in the use case file today?"""

from prefect import flow

from flows.running import revival
from flows.steps.stages import STAGES
from leastwise.answering.answerer import UNMEASURABLE
from leastwise.ladder.ending import UpkeepEnding
from leastwise.run_id import RunId
from leastwise.stores.caps import BudgetExceeded
from tasks import rebaseline as rebaselining


@flow(name="rebaseline")
def rebaseline(use_case: str) -> UpkeepEnding:
    """Measure the untrained stages below the champion's and recommend to step down or to stay; nothing is changed.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
    """
    run = revival.opened(rebaselining.open_rebaseline, use_case)
    tried: list[RunId] = []
    try:
        for stage in rebaselining.stages_below(run):
            if short := rebaselining.short_of_money(run, stage):
                return rebaselining.recommend(run, tried, short)
            tried.append(STAGES[stage](run))
            if rebaselining.suffices(tried[-1]):
                break
    except BudgetExceeded as limit:
        return rebaselining.recommend(run, tried, str(limit))
    except UNMEASURABLE as why:
        return rebaselining.recommend(run, tried, str(why), "error")
    return rebaselining.recommend(run, tried)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(rebaseline)
