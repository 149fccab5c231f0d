"""What advice rests on beside the use case: counts, what was found in the rows, prices and error probabilities.

It counts, looks at and prices nothing.
"""

from __future__ import annotations

from pydantic import Field

from leastwise.ladder.needs import Situation
from leastwise.money.expected_cost import ExpectedCost, Facts
from leastwise.part import Part
from leastwise.use_case import Stage
from leastwise.use_case.model import Model
from leastwise.use_case.price import Price, Usage


class Offer(Part):
    """A model that could be named and is not, with its price."""

    model: Model
    price: Price


class Found(Part):
    """What was found in the rows of a use case as they lie (`leastwise.rows.findings`)."""

    lines: tuple[str, ...] = Field((), description="In words: shares of labels, lengths, near duplicates, and so on.")
    gate_units: int = Field(0, ge=0, description="Gate examples: rows, or what they share where units are counted.")
    unanswerable: int = Field(
        0, ge=0, description="Gate rows that no candidate gets right which says the same to what says nearly the same."
    )
    words_lower: float | None = Field(
        None, ge=0, le=1, description="Share of dev rows that words in a linear classifier surely get right."
    )


class Premises(Part):
    """What advice rests on beside the use case: rows by table, prices by candidate URI, and the error probabilities."""

    rows: dict[str, int]
    prices: dict[str, Price]
    base_price: Price | None = None
    judge_price: Price | None = None
    worst: dict[Stage, float] = Field({}, description="What each stage may cost at worst, dollars.")
    usages: dict[Stage, Usage] = Field(
        {}, description="Tokens of one request on average; a stage without them: `leastwise.ladder.prospects`."
    )
    expected: dict[Stage, ExpectedCost] = Field({}, description="What each stage is expected to cost.")
    facts: Facts | None = Field(None, description="What `expected` was made of; without it no saving is worked out.")
    found: Found | None = Field(None, description="None: nobody looked.")
    offers: tuple[Offer, ...] = Field((), description="Small models of today, of providers that are asked already.")
    repeat_share: float | None = Field(None, ge=0, le=1)
    alpha_pass: float = Field(gt=0, lt=1, description="Of one candidate, after the ladder-wide split.")
    alpha_fail: float = Field(gt=0, lt=1, description="Of one requirement.")

    @property
    def gate_units(self) -> int:
        """Gate examples at hand."""
        return self.found.gate_units if self.found else self.rows.get("gate", 0)

    @property
    def situation(self) -> Situation:
        """The same for the ladder."""
        return Situation(
            train_rows=self.rows.get("train", 0),
            document_rows=self.rows.get("documents", 0),
            unlabelled_rows=self.rows.get("unlabelled", 0),
            repeat_share=self.repeat_share,
        )
