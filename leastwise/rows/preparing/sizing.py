"""How many rows each split gets: the gate what its verdict needs at the wanted margin, the rest by what is left.

It knows no row. Sizes are of rows; where groups count once, a gate needs as many rows as make the examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from leastwise.errors import BadInput
from leastwise.evidence.examples_needed import MARGINS, examples_to_decide

HARDEST = 0.5  # the bound that takes most examples at a margin
MOST_GATE, MOST_TEST, MOST_DEV = 0.3, 0.15, 0.1  # shares of all rows
AMPLE = 1.5  # of what decides a candidate at the bound or the floor; one between them takes longer
ROWS_A_CLASS = 10  # by which the shares of classes come out within about .01
LEAST_TEST, LEAST_DEV, WANTED_TEST, WANTED_DEV = 30, 20, 1000, 300
JUDGED = ("gate", "test", "dev")


@dataclass(frozen=True)
class Sizes:
    """Rows of each judged split, and the margin that the gate decides by them."""

    gate: int
    test: int
    dev: int
    margin: float
    needed: int  # examples, of a candidate exactly at the bound or the floor

    @property
    def of(self) -> dict[str, int]:
        """By split."""
        return {"gate": self.gate, "test": self.test, "dev": self.dev}


def sizes_for(
    rows: int, units: int, classes: int, bound: float | None, margin: float | None, alpha_pass: float, alpha_fail: float
) -> Sizes:
    """The sizes for so many rows in so many units (groups that count once); BadInput says how many rows are missing.

    Where no margin is asked for, the smallest of MARGINS that the rows can decide is taken.
    """
    rows_a_unit = rows / max(units, 1)

    def needed(tried: float) -> int:
        goal = max(bound or HARDEST, tried + 0.01)
        return examples_to_decide(goal, tried, alpha_pass, alpha_fail)

    tries = (margin,) if margin else MARGINS
    most = math.floor(MOST_GATE * rows)
    fitting = [each for each in tries if math.ceil(needed(each) * rows_a_unit) <= most]
    if not fitting:
        examples = needed(tries[-1])
        wanted = math.ceil(math.ceil(examples * rows_a_unit) / MOST_GATE)
        of_groups = f" ({units:,} groups, which count once)" if units < rows else ""
        raise BadInput(
            f"too few rows: {rows:,}{of_groups} are left after cleaning, and a gate with a margin of "
            f"{tries[-1]:g} needs {examples:,} examples, at most {MOST_GATE:.0%} of all: add {wanted - rows:,} rows"
            + (", or take a larger margin" if margin else "")
        )
    chosen = fitting[0]
    least = math.ceil(needed(chosen) * rows_a_unit)
    by_class = ROWS_A_CLASS * classes
    return Sizes(
        gate=max(least, min(math.floor(MOST_GATE * rows), max(math.ceil(AMPLE * least), by_class))),
        test=max(LEAST_TEST, min(math.floor(MOST_TEST * rows), max(WANTED_TEST, by_class))),
        dev=max(LEAST_DEV, min(math.floor(MOST_DEV * rows), max(WANTED_DEV, by_class))),
        margin=chosen,
        needed=needed(chosen),
    )


def quotas(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Rows of each class for a split of about `size`: by share, one at least where a class has four, and at the size
    from `size` to a quarter more at which the shares come out best.
    """
    total = sum(counts.values())
    best: dict[str, int] = {}
    off = math.inf
    for tried in range(size, size + max(1, size // 4)):
        rounded = {name: max(int(count >= 4), round(tried * count / total)) for name, count in counts.items()}
        distance = total_variation(rounded, counts)
        if distance < off - 1e-4:
            best, off = rounded, distance
    return best


def total_variation(some: Mapping[str, int], every: Mapping[str, int]) -> float:
    """Half the sum of the differences of class shares, 0..1; 1 where there are no rows."""
    one, other = sum(some.values()), sum(every.values())
    if not one or not other:
        return 1.0
    return sum(abs(some.get(name, 0) / one - count / other) for name, count in every.items()) / 2
