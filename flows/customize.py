"""The ladder: stage after stage, cheapest first, until one meets the requirements as logged in MLflow."""

from prefect import flow

from flows import asking, running
from leastwise.ladder import Step, ending
from leastwise.rows.use_case_file import Overrides
from leastwise.stores.caps import BudgetExceeded
from tasks import data
from tasks.climb import measure_reference, next_step, open_climb, skip


@flow(name="customize")
def customize(use_case: str = "alert-triage", overrides: Overrides = Overrides()) -> ending.Ending:  # noqa: B008
    """Find the least customization that meets a use case's requirements, and stop there.

    Args:
        use_case: Name of a saved use case (a file of use_cases/), or the path or URI of a YAML file.
        overrides: What to change of it for this run; everything left empty stays as it is in the file.
    """
    climb = open_climb(use_case, overrides)
    data.validate_judged(climb)
    measure_reference(climb)
    answers: dict[str, str] = {}
    last_run = None
    while True:
        step = next_step(climb, last_run, answers, asking.can_ask())
        if step.action == "end":
            return running.ended(climb, step)
        if step.action == "skip":
            skip(climb, step.stage, step.reason)
        elif step.action == "ask":
            answers[step.stage] = asking.ask(climb, step)
        else:
            try:
                last_run = running.run_stage(step.stage, climb)
            except BudgetExceeded as limit:
                halt = Step(action="end", outcome="budget", stage=step.stage, reason=str(limit))
                return running.ended(climb, halt)


if __name__ == "__main__":
    from flows.command_line import run

    run(customize)
