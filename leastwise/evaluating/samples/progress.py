"""How far a sample is from its decision. It is shown, and decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from leastwise.evaluating.gate_tests import GateTests
from leastwise.evaluating.samples.sample import Sample
from leastwise.evidence.examples_needed import more_to_decide
from leastwise.evidence.measurement import Measurement


def rows_to_go(tests: GateTests, noted: Mapping[str, Measurement], sample: Sample, rows: int) -> int | None:
    """About how many rows after so many decide every open requirement of a sample, at most those that are left; None
    where it cannot be told.
    """
    if not tests.is_open(*sample.requirements):
        return 0
    own = {name: m for name, m in noted.items() if sample.judges(name)}
    needed = [more for name, m in own.items() if tests.is_undecided(name) and (more := more_to_decide(m))]
    if not needed:
        return None
    rows_an_example = rows / max(m.n for m in own.values())
    return min(math.ceil(max(needed) * rows_an_example), len(sample.judged.rows) - rows)
