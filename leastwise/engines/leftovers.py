"""Ends what a command leaves running when it is killed: a child that waits for the command's end and then tidies up.

A command that ends by itself has already stopped what it started, and nothing is found then. What does not run under
the command's mark (other commands, the servers of `make up`) is never touched.
"""

import os
import subprocess
import sys
import uuid

import psutil

from leastwise.engines import processes
from leastwise.stores.shipped import ROOT

MARK = "LEASTWISE_COMMAND"
STOP_S = 5.0


def watch() -> None:
    """From here on, whatever this process starts ends with it, even if it is killed with SIGKILL."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    # The child reads a pipe that only this process can write to: its end is this process's end, however it comes.
    # A session of its own keeps a Ctrl-C in the terminal from reaching it first.
    watcher = subprocess.Popen(
        [sys.executable, "-m", "leastwise.engines.leftovers", mark],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd=ROOT,
    )
    _watchers.append(watcher)


_watchers: list[subprocess.Popen[bytes]] = []  # holds the pipe open as long as this process lives


def _end(mark: str) -> None:
    left = processes.marked(MARK, mark)
    for process in left:
        process.terminate()
    for process in psutil.wait_procs(left, STOP_S)[1]:
        process.kill()


if __name__ == "__main__":
    sys.stdin.read()
    _end(sys.argv[1])
