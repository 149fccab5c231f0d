"""What advice rests on beside the use case: counts, prices and error probabilities. It counts and prices nothing."""

from __future__ import annotations

from pydantic import Field

from leastwise.ladder.needs import Situation
from leastwise.money.expected_cost import ExpectedCost
from leastwise.part import Part
from leastwise.use_case import Stage
from leastwise.use_case.price import Price, Usage


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
    repeat_share: float | None = Field(None, ge=0, le=1)
    alpha_pass: float = Field(gt=0, lt=1, description="Of one candidate, after the ladder-wide split.")
    alpha_fail: float = Field(gt=0, lt=1, description="Of one requirement.")

    @property
    def situation(self) -> Situation:
        """The same for the ladder."""
        return Situation(
            train_rows=self.rows.get("train", 0),
            document_rows=self.rows.get("documents", 0),
            unlabelled_rows=self.rows.get("unlabelled", 0),
            repeat_share=self.repeat_share,
        )
