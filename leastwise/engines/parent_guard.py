"""The child process that runs a command which does not watch its parent itself; started by the engines alone.

It ends the command's process group when it is asked to, or when its own parent is gone; asked to drain (SIGUSR1) it
lets the group end by itself. It starts nothing again.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import psutil

from leastwise.engines import processes
from leastwise.engines.llama_server import PARENT_POLL_S


def guard(command: list[str]) -> int:
    """Run a command; gives back its exit status, 0 where it was drained."""
    parent, is_draining = os.getppid(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: is_draining.set())
    child = subprocess.Popen(command, start_new_session=True)
    try:
        while child.poll() is None and os.getppid() == parent:
            if is_draining.wait(PARENT_POLL_S):
                _drain(child, parent)
                return 0
        return child.returncode or 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _drain(child: subprocess.Popen[bytes], parent: int) -> None:
    """Ask the group to end, and wait for all of it: who started the server may be gone before it."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    os.killpg(child.pid, signal.SIGTERM)
    while any(processes.is_alive(each) for each in family) and os.getppid() == parent:
        child.poll()
        time.sleep(PARENT_POLL_S)


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
