"""The intervals of an evaluation as they narrow, look by look. It is shown and logged, and decides nothing."""

from __future__ import annotations

import math

from leastwise.evaluating.gate_tests import GateTests
from leastwise.evaluating.samples.sample import Sample
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.measured import Interval

NOTED_ALL = 1000  # rows up to which the intervals of every look are noted; from there on each time there are
NOTED_EVERY = 1.25  # so many times as many, which keeps the work in proportion to the rows


class Narrowing:
    """What was noted of these tests."""

    def __init__(self, tests: GateTests) -> None:
        self._tests = tests
        self._intervals: list[Interval] = []
        self._next_note = 0
        self.last: dict[str, Measurement] = {}

    def begin(self) -> None:
        """Another sample is looked at, from its first row on."""
        self._next_note = 0

    def note(self, sample: Sample, rows: int) -> None:
        """The intervals after a look; with many examples at ever rarer looks, for each is worked out over them all."""
        if rows < self._next_note and self._tests.is_open(*sample.requirements):
            return
        self._next_note = max(rows, math.ceil(NOTED_EVERY * rows) if rows >= NOTED_ALL else 0)
        self.last = self._tests.measurements()
        self._intervals += [_interval(m) for m in self.last.values() if sample.judges(m.name)]

    def until(self, now: dict[str, Measurement]) -> list[Interval]:
        """All that was noted, and what there is `now` where that is more."""
        more = (m for m in now.values() if m.name in self.last and m.n != self.last[m.name].n)
        return self._intervals + [_interval(m) for m in more]


def _interval(m: Measurement) -> Interval:
    return Interval(m.name, m.n, m.estimate, m.lower, m.upper)
