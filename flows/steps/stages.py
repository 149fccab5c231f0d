"""Running a stage's flow where it belongs: in this process, or on the pool with the machines it needs.

Which stage runs is not decided here.
"""

from __future__ import annotations

import os

from prefect.client.schemas.objects import State

from flows.cache import cache
from flows.distill import distill
from flows.fine_tune import fine_tune
from flows.pretrain import pretrain
from flows.prompt import prompt
from flows.rag import rag
from flows.self_host import self_host
from flows.steps.on_pool import PoolFlow, run_on_pool
from leastwise.answering.answerer import UNMEASURABLE
from leastwise.ladder import Step
from leastwise.ladder.ending import ClimbEnding
from leastwise.run_id import RunId
from leastwise.stores.caps import BudgetExceeded
from leastwise.use_case import Stage
from tasks import climb as climbing
from tasks.serving import deploy as deploying

STAGES = {flow.name: flow for flow in (prompt, rag, cache, fine_tune, pretrain, distill, self_host)}
ON_GPU_POOL = frozenset({"fine_tune", "pretrain", "distill", "self_host"})


class BudgetReachedOnPool(BudgetExceeded):
    """A stage on a pool reached a cap; another process's exception arrives as text only."""

    def __init__(self, message: str) -> None:
        RuntimeError.__init__(self, message)


def run_stage(stage: Stage, climb: RunId) -> RunId:
    """Run a stage and give back its MLflow run id.

    With LEASTWISE_POOLS=1 (set for the workers of `make up`) stages that train or serve run as deployments on the gpu
    pool and show nested under this run; without it, and where a host trains, they run as subflows in this process.
    """
    if stage in ON_GPU_POOL and on_pools() and not climbing.trains_at_host(climb, stage):
        # The result stays on the machine of the pool; what this process needs is in MLflow.
        require_completed(stage, run_on_pool(stage, climb))
        return climbing.stage_run_id(climb, stage)
    return STAGES[stage](climb)


def _confirmed(climb: RunId, outcome: str) -> str:
    """What the test split says of a winner, where its engine is: one that was measured on the gpu pool by an engine
    that this machine lacks is asked there.
    """
    if outcome in ON_GPU_POOL and on_pools() and climbing.lacks_engine(climb, outcome):
        state = run_on_pool("confirm", climb, outcome=outcome)
        require_completed("confirm", state)
        return (state and state.message) or climbing.NOT_MEASURED
    return climbing.confirm(climb, outcome)


def on_pools() -> bool:
    """Whether stages run as deployments on the pools of `make up` or of a cluster."""
    return os.environ.get("LEASTWISE_POOLS") == "1"


def require_completed(stage: PoolFlow, state: State | None) -> None:
    """Raise what ended a stage in another process: BudgetReachedOnPool for a cap, what could not be measured as it is,
    RuntimeError for anything else.
    """
    if state is not None and state.is_completed():
        return
    message = (state and state.message) or "no message"
    if f"{BudgetExceeded.__name__}: " in message:
        raise BudgetReachedOnPool(message.partition(f"{BudgetExceeded.__name__}: ")[2])
    for kind in UNMEASURABLE:
        if f"{kind.__name__}: " in message:
            raise kind(message.partition(f"{kind.__name__}: ")[2])
    raise RuntimeError(f"the {stage} stage ended as {state.name if state else 'unknown'}: {message}")


def ended(climb: RunId, step: Step) -> ClimbEnding:
    """Confirm a winner on the untouched test split, then write down the ending; a winner that cannot be paid to be
    confirmed ends the climb at its budget, and run again it is confirmed first.
    """
    if step.outcome not in climbing.WINNERS:
        return climbing.finish(climb, step, climbing.NOT_MEASURED)
    if step.outcome == "self_host" and deploying.was_cut_off(climb):
        run_stage("self_host", climb)
    try:
        confirmed = _confirmed(climb, step.outcome or "")
    except BudgetExceeded as limit:
        why = f"{step.outcome} meets the requirements, and is not confirmed on test: {limit}"
        halt = Step(action="end", outcome="budget", stage=step.stage, reason=why)
        return climbing.finish(climb, halt, climbing.NOT_MEASURED)
    except UNMEASURABLE as why:
        step = step.model_copy(update={"reason": f"{step.reason}; it is not confirmed on test: {why}"})
        confirmed = climbing.NOT_MEASURED
    return climbing.finish(climb, step, confirmed)
