"""The ladder: stage after stage, cheapest first, until one meets the requirements as logged in MLflow."""

from prefect import flow

from flows.running import revival
from flows.steps import asking, stages
from leastwise.answering.answerer import UNMEASURABLE
from leastwise.ladder import Step
from leastwise.ladder.ending import ClimbEnding
from leastwise.rows.use_case_file import Overrides
from leastwise.run_id import RunId
from leastwise.stores.caps import BudgetExceeded
from tasks import climb as climbing
from tasks import data


@flow(name="customize")
def customize(use_case: str = "alert-triage", overrides: Overrides = Overrides()) -> ClimbEnding:  # noqa: B008 - the form shows it
    """Find the least customization that meets a use case's requirements, and stop there.

    Args:
        use_case: Name of a saved use case (a file of use_cases/), or the path or URI of a YAML file.
        overrides: What to change of it for this run; everything left empty stays as it is in the file.
    """
    climb = revival.opened(climbing.open_climb, use_case, overrides)
    data.validate_judged(climb)
    climbing.measure_reference(climb)
    answers = climbing.leave_given(climb) if revival.losses() else {}
    last_run: RunId | None = None
    while True:
        step = climbing.next_step(climb, last_run, answers, asking.can_ask())
        if step.action == "end" or step.stage is None:
            return stages.ended(climb, step)
        if step.action == "skip":
            climbing.skip(climb, step.stage, step.reason)
        elif step.action == "ask":
            answers[step.stage] = asking.ask(climb, step.stage, step.reason, step.question)
        else:
            try:
                last_run = stages.run_stage(step.stage, climb)
            except BudgetExceeded as limit:
                halt = Step(action="end", outcome="budget", stage=step.stage, reason=str(limit))
                return stages.ended(climb, halt)
            except UNMEASURABLE as why:
                halt = Step(action="end", outcome="error", stage=step.stage, reason=f"{step.stage}: {why}")
                return stages.ended(climb, halt)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(customize)
