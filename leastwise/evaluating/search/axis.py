"""An axis of a search: variants of one candidate that differ in one thing. It asks and scores nothing."""

from __future__ import annotations

from dataclasses import dataclass

from leastwise.evaluating.search.report import RetrievalStep
from leastwise.ladder.candidate import Candidate


@dataclass(frozen=True)
class Variant:
    """A candidate and what it is called on its axis."""

    name: str
    candidate: Candidate


@dataclass(frozen=True)
class Axis:
    """The variants of one axis; `left_out` says of each that cannot be tried here why.

    `told` is what was told of them without a call, and `decided` the variant that this alone decides for.
    """

    name: str
    variants: tuple[Variant, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    told: tuple[RetrievalStep, ...] = ()
    decided: Variant | None = None
