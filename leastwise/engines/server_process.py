"""A model server of ours in a process of its own, as whoever started it holds it: its names, its counts, its end.

It starts nothing and knows no engine: which names an engine's counts have is told by whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.engine import AtWork

DRAIN = signal.SIGUSR1  # the children of this room answer what they have at it, and end


@dataclass(frozen=True)
class Counts:
    """The names of an engine's Prometheus counts; of those of several series (one a model) the sum is meant."""

    waiting: str
    running: str
    input_tokens: str
    output_tokens: str

    def read(self, text: str) -> AtWork:
        """What the engine's page says; what it does not name is 0."""
        from prometheus_client.parser import text_string_to_metric_families

        sums = dict.fromkeys((self.waiting, self.running, self.input_tokens, self.output_tokens), 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
        return AtWork(*(int(value) for value in sums.values()))


@dataclass(frozen=True)
class ServerProcess:
    """A server of ours that is ready; `endpoints` by the names it may be asked for, `url` its root."""

    child: subprocess.Popen[bytes]
    url: str
    endpoints: Mapping[str, Endpoint]
    counts: Counts | None = None
    key: str = field(default="", repr=False)
    stop_s: float = 5.0

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be asked for."""
        return tuple(self.endpoints)

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Where that name answers; KeyError for one it does not serve."""
        return self.endpoints[self.names[0] if name is None else name]

    def is_healthy(self) -> bool:
        """Whether it says so itself."""
        return self.child.poll() is None and processes.is_up(f"{self.url}/health")

    def at_work(self) -> AtWork | None:
        """Its counts, read now."""
        if self.counts is None:
            return None
        try:
            with processes.opened(f"{self.url}/metrics", self.key) as answer:
                return self.counts.read(answer.read().decode())
        except (OSError, TimeoutError, urllib.error.HTTPError):
            return None

    def drain(self, within_s: float) -> bool:
        """Let it answer what it has; whether it ended so. It is left as it is where the time was too short."""
        with contextlib.suppress(ProcessLookupError):
            if self.child.poll() is None:
                os.kill(self.child.pid, DRAIN)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.child.wait(within_s) == 0
        return False

    def stop(self) -> None:
        """End it and what it started."""
        if self.child.poll() is None:  # else its id may be another process's by now
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.end(psutil.Process(self.child.pid), self.stop_s)
        self.child.wait()
