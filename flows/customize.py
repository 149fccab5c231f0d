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
    has_row_0 = climbing.reference_comes_first(climb)
    if has_row_0:
        climbing.measure_reference(climb)
    answers = climbing.leave_given(climb) if revival.losses() else {}
    last_run: RunId | None = None
    while True:
        step = climbing.next_step(climb, last_run, answers, asking.can_ask())
        if step.action == "skip" and step.stage:
            climbing.skip(climb, step.stage, step.reason)
        elif step.action == "ask" and step.stage:
            answers[step.stage] = asking.ask(climb, step.stage, step.reason, step.question)
        elif step.action == "run" and step.stage:
            try:
                last_run = stages.run_stage(step.stage, climb)
            except BudgetExceeded as limit:
                step = Step(action="end", outcome="budget", stage=step.stage, reason=str(limit))
            except UNMEASURABLE as why:
                step = Step(action="end", outcome="error", stage=step.stage, reason=f"{step.stage}: {why}")
        if step.action in ("run", "end") and not has_row_0:
            climbing.measure_reference(climb)
            has_row_0 = True
        if step.action == "end" or step.stage is None:
            return stages.ended(climb, step)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(customize)
