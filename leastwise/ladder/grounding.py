"""Did retrieval or generation fail? A rule over what a grounded candidate's quality is with and without a gold document before it.

It searches and scores nothing, and it decides no verdict: it goes by plain estimates and is a diagnosis that is reported.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leastwise.part import Part

Fault = Literal["neither", "retrieval", "generation", "both", "shared"]


class Half(Part):
    """The rows of which a gold document was (or was not) before the model."""

    n: int = Field(ge=0, description="Rows that were answered and scored.")
    quality: float = Field(0.0, ge=0, le=1, description="Their mean quality; of no meaning where there are none.")


class Grounding(Part):
    """What one candidate made of what was retrieved for it."""

    bound: float = Field(ge=0, le=1, description="The quality wanted.")
    recall: float = Field(ge=0, le=1, description="Share of rows with a gold document before the model.")
    recall_rows: int = Field(
        ge=1, description="Rows that share was counted on; more than were answered where the gate stopped early."
    )
    found: Half
    missed: Half

    @property
    def quality(self) -> float:
        """Mean quality over both halves."""
        return (self.found.n * self.found.quality + self.missed.n * self.missed.quality) / max(
            self.found.n + self.missed.n, 1
        )

    @property
    def ceiling(self) -> float:
        """The quality perfect generation would reach: 1 where a gold document was found, as measured where it was not."""
        return self.recall + (1 - self.recall) * (self.missed.quality if self.missed.n else 0.0)


def fault(seen: Grounding) -> Fault:
    """What has to get better before quality can reach its bound.

    `neither` where it reaches it. Else `retrieval` where even perfect answers to the rows with a gold document would not be enough
    (`ceiling`), `generation` where the answers to those rows themselves miss the bound, `both` where both hold, and `shared` where
    neither does: each would do if the other were perfect, and together they fall short.
    """
    if seen.quality >= seen.bound and seen.found.n + seen.missed.n:
        return "neither"
    is_retrieval = seen.ceiling < seen.bound
    is_generation = seen.found.n > 0 and seen.found.quality < seen.bound
    if is_retrieval:
        return "both" if is_generation else "retrieval"
    return "generation" if is_generation else "shared"


def diagnosis(seen: Grounding) -> str:
    """The fault in one sentence with its figures."""
    found = f"a gold document was before the model for {seen.recall:.2f} of {seen.recall_rows:,} rows"
    ceiling = f"perfect answers to these would come to {seen.ceiling:.2f}, {seen.bound:g} is wanted"
    there = (
        f"where it was, quality is {seen.found.quality:.2f} (n={seen.found.n:,})"
        if seen.found.n
        else "none of these was answered yet"
    )
    absent = f", elsewhere {seen.missed.quality:.2f} (n={seen.missed.n:,})" if seen.missed.n else ""
    return f"{_SAID[fault(seen)]}: {found} ({ceiling}); {there}{absent}."


_SAID: dict[Fault, str] = {
    "neither": "Neither retrieval nor generation failed",
    "retrieval": "Retrieval failed, not generation",
    "generation": "Generation failed, not retrieval",
    "both": "Retrieval and generation both failed",
    "shared": "Retrieval and generation fall short only together",
}
