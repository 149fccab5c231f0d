"""The pipeline of others: one candidate, as somebody's pull request proposes it, judged at the gate."""

from prefect import flow

from flows.running import revival
from leastwise.ladder.ending import GateEnding
from leastwise.stores.caps import BudgetExceeded
from tasks import data
from tasks.pipeline import gate as gating


@flow(name="gate")
def gate(use_case: str, candidate: str) -> GateEnding:
    """Judge one candidate by the use case's requirements and change nothing: exit 0 PASS, 3 FAIL, 4 UNDECIDED.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        candidate: A JSON or YAML file with a candidate, or with what differs from the champion (from the plain prompt
        candidate where there is none); or models:/NAME@ALIAS or models:/NAME/VERSION.
    """
    opening = revival.opened(gating.open_gate, use_case, candidate)
    if opening.ending:
        return opening.ending
    try:
        data.validate_judged(opening.run)
        return gating.judge_candidate(opening.run)
    except BudgetExceeded as limit:
        return gating.halted(opening.run, str(limit))


if __name__ == "__main__":
    from flows.running.command_line import run

    run(gate)
