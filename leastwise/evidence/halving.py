"""Successive halving: many settings on few examples, the better half on twice as many, until one is left.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016. It
trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Round(NamedTuple):
    """How many trials a round has and on how many examples each is trained."""

    trials: int
    examples: int


def schedule(trials: int, first_examples: int, most_examples: int) -> tuple[Round, ...]:
    """The rounds of a search over that many settings; none where there is nothing to choose from."""
    rounds, examples = [], min(first_examples, most_examples)
    while trials > 1:
        rounds.append(Round(trials, examples))
        trials, examples = math.ceil(trials / 2), min(2 * examples, most_examples)
    return tuple(rounds)


def better_half(scores: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the better half of (metric, loss) pairs, best first: the higher metric, of equals the lower loss.

    What is no number (a training that diverged) comes last.
    """

    def rank(at: int) -> tuple[float, float]:
        metric, loss = scores[at]
        if not (math.isfinite(metric) and math.isfinite(loss)):
            return (math.inf, math.inf)
        return (-metric, loss)

    return sorted(range(len(scores)), key=rank)[: math.ceil(len(scores) / 2)]
