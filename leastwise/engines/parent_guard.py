"""The child process that runs a command which does not watch its parent itself; started by `mlflow_server` alone.

It ends the command's process group when it is asked to, or when its own parent is gone. It starts nothing again.
"""

import os
import signal
import subprocess
import sys
import time

from leastwise.engines.llama_server import PARENT_POLL_S


def guard(command: list[str]) -> int:
    """Run a command; gives back its exit status."""
    parent = os.getppid()
    child = subprocess.Popen(command, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while child.poll() is None and os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        return child.returncode or 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
