"""Advice: the decision matrix over a use case, before anything is spent. Opens no climb and calls no model."""

from prefect import flow

from leastwise.ladder.ending import AdviceEnding
from leastwise.rows.use_case_file import Overrides
from tasks.advise import give_advice


@flow(name="advise")
def advise(use_case: str = "alert-triage", overrides: Overrides = Overrides()) -> AdviceEnding:  # noqa: B008 - the form shows it
    """Say which stages could be needed and which are ruled out and why, what each may cost, and what data is missing.

    Args:
        use_case: Name of a saved use case (a file of use_cases/), or the path or URI of a YAML file.
        overrides: What to change of it for this run; everything left empty stays as it is in the file.
    """
    return give_advice(use_case, overrides)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(advise)
