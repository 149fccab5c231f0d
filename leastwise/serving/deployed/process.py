"""The process of an endpoint that stays: `python -m leastwise.serving.deployed.process`, started by `starting.py`.

It holds the listening socket it inherits and keeps the workers running, until it is asked to end; one that is not to
stay ends with whoever started it too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from leastwise.engines.processes import StartError
from leastwise.errors import BadInput
from leastwise.redaction import hide_all, redacted
from leastwise.serving.server import Endpoint, endpoint_of, until_asked_to_end
from leastwise.serving.worker import BAD_INPUT, Work

VARIABLE = "LEASTWISE_DEPLOYED"  # a Work as JSON
PARENT = "LEASTWISE_DEPLOYED_PARENT"  # the process with which it ends; empty: it stays
PARENT_POLL_S = 0.5


def main() -> int:
    """Serve; gives back the exit status: 0 asked to end, 2 what a person can put right, 1 it did not start (its last
    lines say what).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    hide_all(os.environ)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end)
    work = Work.model_validate_json(os.environ.pop(VARIABLE))
    try:
        with (
            socket.socket(fileno=work.socket) as bound,
            endpoint_of(work, bound) as running,
            until_asked_to_end(running),
        ):
            if parent := os.environ.get(PARENT):
                threading.Thread(target=_end_with, args=(running, int(parent)), daemon=True).start()
            running.wait()
    except (BadInput, StartError) as error:
        print(redacted(str(error)), file=sys.stderr, flush=True)
        return BAD_INPUT if isinstance(error, BadInput) else 1
    return 0


def _end_with(running: Endpoint, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    running.end()


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)  # asked to end while it started: the block ends what there is


if __name__ == "__main__":
    sys.exit(main())
