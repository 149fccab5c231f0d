"""What an engine had to do while it served: the most that waited and ran at once, and the tokens it computed.

It asks an engine for its counts now and then, and changes nothing of how it serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from leastwise.engines.engine import AtWork, Running

EVERY_S = 1.0  # reading the counts takes a server a millisecond
TOKENS, MOST = ("engine.input_tokens", "engine.output_tokens"), ("engine.most_waiting", "engine.most_running")


class Watch:
    """The counts of one engine, from when it is watched on."""

    def __init__(self, running: Running) -> None:
        self._running, self._lock = running, threading.Lock()
        self._first = self._last = running.at_work()
        self._waiting = self._running_at_once = 0

    def look(self) -> AtWork | None:
        """Read the counts once more; None where the engine tells none."""
        now = self._running.at_work()
        if now is None:
            return None
        with self._lock:
            self._last, self._first = now, self._first or now
            self._waiting = max(self._waiting, now.waiting)
            self._running_at_once = max(self._running_at_once, now.running)
        return now

    def figures(self) -> dict[str, float]:
        """What it came to until now; nothing of an engine that counts nothing."""
        self.look()
        if self._first is None or self._last is None:
            return {}
        tokens = (
            self._last.input_tokens - self._first.input_tokens,
            self._last.output_tokens - self._first.output_tokens,
        )
        most = (self._waiting, self._running_at_once)
        return {name: float(count) for name, count in zip((*TOKENS, *MOST), (*tokens, *most), strict=True)}


@contextmanager
def watched(running: Running) -> Iterator[Watch]:
    """Look every second while the block runs; an engine that tells nothing at first is not asked again."""
    watch, over = Watch(running), threading.Event()

    def look() -> None:
        while not over.wait(EVERY_S):
            watch.look()

    if watch.look() is None:
        yield watch
        return
    thread = threading.Thread(target=look, name="watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def together(*figures: Mapping[str, float]) -> dict[str, float]:
    """Those of several engines that answer for one candidate: tokens added, of what waited and ran the most."""
    ways: dict[str, Callable[[Iterable[float]], float]] = {**dict.fromkeys(TOKENS, sum), **dict.fromkeys(MOST, max)}
    told = {name: [each[name] for each in figures if name in each] for name in ways}
    return {name: ways[name](values) for name, values in told.items() if values}
