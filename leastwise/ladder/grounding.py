"""Did retrieval or generation fail? A rule over a grounded candidate's quality with and without a gold document.

It searches and scores nothing, and it decides no verdict: it goes by plain estimates and is a diagnosis that is
reported.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leastwise.part import Result

Fault = Literal["neither", "retrieval", "generation", "both", "shared"]


class Half(Result):
    """The rows of which a gold document was (or was not) before the model."""

    n: int = Field(ge=0, description="Rows that were answered and scored.")
    quality: float = Field(0.0, ge=0, le=1, description="Their mean quality; of no meaning where there are none.")


class Grounding(Result):
    """What one candidate made of what was retrieved for it."""

    bound: float = Field(ge=0, le=1, description="The quality wanted.")
    recall: float = Field(ge=0, le=1, description="Share of rows with a gold document before the model.")
    recall_rows: int = Field(
        ge=1, description="Rows that share was counted on; more than were answered where the gate stopped early."
    )
    with_gold: Half
    without_gold: Half

    @property
    def quality(self) -> float:
        """Mean quality over both halves."""
        found, missed = self.with_gold, self.without_gold
        return (found.n * found.quality + missed.n * missed.quality) / max(found.n + missed.n, 1)

    @property
    def ceiling(self) -> float:
        """The quality perfect generation would reach: 1 with a gold document before it, as measured without."""
        return self.recall + (1 - self.recall) * (self.without_gold.quality if self.without_gold.n else 0.0)


def fault(grounding: Grounding) -> Fault:
    """What has to get better before quality can reach its bound.

    `neither` where it reaches it. Else `retrieval` where even perfect answers to the rows with a gold document would
    not be enough (`ceiling`), `generation` where the answers to those rows themselves miss the bound, `both` where both
    hold, and `shared` where neither does: each would do if the other were perfect, and together they fall short.
    """
    bound, with_gold = grounding.bound, grounding.with_gold
    if grounding.quality >= bound and with_gold.n + grounding.without_gold.n:
        return "neither"
    is_retrieval = grounding.ceiling < bound
    is_generation = with_gold.n > 0 and with_gold.quality < bound
    if is_retrieval:
        return "both" if is_generation else "retrieval"
    return "generation" if is_generation else "shared"


def diagnosis(grounding: Grounding) -> str:
    """The fault in one sentence with its figures."""
    found, missed = grounding.with_gold, grounding.without_gold
    recall = f"a gold document was before the model for {grounding.recall:.2f} of {grounding.recall_rows:,} rows"
    ceiling = f"perfect answers to these would come to {grounding.ceiling:.2f}, {grounding.bound:g} is wanted"
    there = (
        f"where it was, quality is {found.quality:.2f} (n={found.n:,})" if found.n else "none of these was answered yet"
    )
    absent = f", elsewhere {missed.quality:.2f} (n={missed.n:,})" if missed.n else ""
    return f"{_IN_WORDS[fault(grounding)]}: {recall} ({ceiling}); {there}{absent}."


_IN_WORDS: dict[Fault, str] = {
    "neither": "Neither retrieval nor generation failed",
    "retrieval": "Retrieval failed, not generation",
    "generation": "Generation failed, not retrieval",
    "both": "Retrieval and generation both failed",
    "shared": "Retrieval and generation fall short only together",
}
