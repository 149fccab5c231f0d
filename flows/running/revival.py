"""A flow run whose worker was lost, and that Prefect started again (infra/automations.yaml): what it does first.

It waits for who is still at work, and gives up after so many losses. It starts nothing again itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from leastwise.errors import AtWork

P = ParamSpec("P")
R = TypeVar("R")
MOST_LOSSES = 3
AGAIN_S = 5.0

log = logging.getLogger("leastwise.flows.revival")


def opened(open_run: Callable[P, R], *given: P.args, **named: P.kwargs) -> R:
    """What a flow opens first. In a run that was lost before, whoever holds it is waited for: the process that seemed
    to be lost may live behind a cut cable, and ends its work or is given up.

    RuntimeError where the run was lost more than MOST_LOSSES times.
    """
    count = losses()
    if count > MOST_LOSSES:
        raise RuntimeError(
            f"this run was lost {count} times, and its worker with it; look at what ends it (memory, disk, the "
            "machine), then start it again: it goes on from where it was and buys no answer twice"
        )
    said = False
    while True:
        try:
            return open_run(*given, **named)
        except AtWork as holder:
            if not count:
                raise
            if not said:
                log.info(f"{holder}. It is waited for, since this run was lost before")
            said = True
            time.sleep(AGAIN_S)


def losses() -> int:
    """How often the present flow run was lost and started again; 0 outside of one."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.run_count < 2 or not run.deployment_id:
        return 0
    with get_client(sync_client=True) as client:
        return sum(state.is_crashed() for state in client.read_flow_run_states(run.id))
