"""A process of ours that outlives whoever started it, as it is written down: found again, and told from a later one.

It starts and ends nothing (see `leastwise.engines.processes`).
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import Self

import psutil

from leastwise.engines import processes
from leastwise.part import Part

CLOCK_S = 1.0  # by which a start time may differ from what was written down


class StartedProcess(Part):
    """A process as it was left; the start time (seconds since 1970) tells it from a later one with the same id."""

    name: str
    pid: int
    started: float

    @classmethod
    def of(cls, name: str, child: subprocess.Popen[bytes] | psutil.Process) -> Self:
        """As it is written down; raises NoSuchProcess where it has ended and left nothing."""
        return cls(name=name, pid=child.pid, started=psutil.Process(child.pid).create_time())

    def process(self) -> psutil.Process | None:
        """The living process, or None where it has ended, whoever has its id by now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < CLOCK_S and processes.is_alive(process):
                return process
        return None
