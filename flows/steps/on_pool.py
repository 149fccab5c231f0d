"""A stage's flow run on the pool with the machines it needs: found if it is there, started, awaited, started again
where its worker was lost.

It opens no climb and reads no verdict. A run counts as lost once Prefect says CRASHED: its worker says so where it
lives, else the automation of infra/automations.yaml, when nothing was heard of it for long enough.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeVar, cast

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State

from leastwise.run_id import RunId
from leastwise.use_case import Stage

R = TypeVar("R")
PoolFlow = Stage | Literal["confirm"]
MOST_STARTS = 4  # of one stage by one climb: what ends every worker it comes to must be looked at
POLL_S, AWAY_S, AGAIN_S = 5.0, 900.0, 5.0
# How a stage fails where a server it needs was away for longer than it waits; its message is all that comes here.
OUTAGES = ("the shared state at", "with url: /api/2.0/mlflow", "LeaseLost: ", ": S3 does not answer (")

log = logging.getLogger("leastwise.flows.on_pool")


def run_on_pool(stage: PoolFlow, climb: RunId, **more: str) -> State | None:
    """The state in which a stage's deployment ended; `more` are parameters of it beside the climb. One that runs for
    this climb already is awaited (a climb that itself was lost left it); one that was lost is started again, and goes
    on from what it left.
    """
    mark, state = f"{stage} of climb {climb}", None
    for start in range(1, MOST_STARTS + 1):
        state = _ended(_unfinished(mark) or _started(stage, climb, mark, more)).state
        if not _was_lost(state):
            break
        log.warning(f"start {start} of {MOST_STARTS} of the {stage} stage was lost: {(state and state.message) or ''}")
    return state


def _was_lost(state: State | None) -> bool:
    if state is None:
        return False
    return state.is_crashed() or (state.is_failed() and any(words in (state.message or "") for words in OUTAGES))


def _unfinished(mark: str) -> FlowRun | None:
    going_on = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[mark]), state=going_on)

    def find() -> list[FlowRun]:
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(flow_run_filter=wanted, limit=1)

    found = patiently(find)
    return found[0] if found else None


def _started(stage: PoolFlow, climb: RunId, mark: str, more: Mapping[str, str] = MappingProxyType({})) -> FlowRun:
    from prefect.deployments import run_deployment

    once = str(uuid.uuid4())  # what is asked again, since the answer was lost, is the same run

    def start() -> FlowRun:
        made = run_deployment(
            f"{stage}/{stage}",
            parameters={"climb": climb, **more},
            as_subflow=True,
            tags=[mark],
            idempotency_key=once,
            timeout=0,
        )
        return cast("FlowRun", made)  # a coroutine only where called from one

    return patiently(start)


def _ended(run: FlowRun) -> FlowRun:
    def read() -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run.id)

    while not ((now := patiently(read)).state and now.state.is_final()):
        time.sleep(POLL_S)
    return now


def patiently(ask: Callable[[], R], within_s: float = AWAY_S) -> R:
    """What a Prefect server answers, asked again while it is away: started again, or behind a cable that is pulled."""
    until = time.monotonic() + within_s
    while True:
        try:
            return ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if refused or time.monotonic() > until:
                raise
            time.sleep(AGAIN_S)
