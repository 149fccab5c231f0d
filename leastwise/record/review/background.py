"""Work for people's eyes that nothing waits for: one thread, still while answers are timed; a failure is a log line.

What a kill leaves undone must be found by who queued it: nothing of the queue is kept.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from queue import SimpleQueue
from typing import TypeVar

from leastwise.redaction import redacted

log = logging.getLogger(__name__)

Job = Callable[[], None]
Made = TypeVar("Made")


class _Worker:
    """One thread and what it has to do. `_free` is set while nobody times answers."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[str, Job]] = SimpleQueue()
        self._lock, self._holders, self._free = threading.Lock(), 0, threading.Event()
        self._free.set()
        threading.Thread(target=self._work, name="shown in MLflow", daemon=True).start()

    def put(self, what: str, job: Job) -> None:
        self._jobs.put((what, job))

    def go_on(self) -> None:
        self._free.wait()

    def hold(self, by: int) -> None:
        with self._lock:
            self._holders += by
            if self._holders:
                self._free.clear()
            else:
                self._free.set()

    def _work(self) -> None:
        while True:
            what, job = self._jobs.get()
            self.go_on()
            attempt(what, job)


def attempt(what: str, job: Callable[[], Made]) -> Made | None:
    """What this makes, or None: what is only shown never fails what is measured, so whatever a tracking server refuses
    is said and left.
    """
    try:
        return job()
    except Exception as error:
        why = redacted(" ".join(str(error).split())[:300])
        log.warning(f"{what} could not be shown in MLflow ({type(error).__name__}: {why}); no verdict rests on it")
        return None


@lru_cache(maxsize=1)
def _worker(_process: int) -> _Worker:
    return _Worker()


def later(what: str, job: Job) -> None:
    """Do this in the background; `what` names it where it fails."""
    _worker(os.getpid()).put(what, job)


def go_on() -> None:
    """Wait while answers are timed; long jobs call it between their pieces."""
    _worker(os.getpid()).go_on()


@contextmanager
def held() -> Iterator[None]:
    """Nothing is done in the background meanwhile: it would take processor time from the answers that are timed."""
    worker = _worker(os.getpid())
    worker.hold(1)
    try:
        yield
    finally:
        worker.hold(-1)


def wait() -> None:
    """Wait until all that was queued so far is done or was left."""
    done = threading.Event()
    later("", done.set)
    done.wait()
