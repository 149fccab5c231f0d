"""What may be set of a bulk run. It starts nothing."""

from __future__ import annotations

from pydantic import Field, field_validator

from leastwise.part import Part


class BulkSettings(Part):
    """How a table is cut, who answers it, and what that may cost."""

    version: str = Field("", pattern=r"^[0-9]*$", description="Version of the registered model; empty: the champion.")
    shard_rows: int = Field(
        10_000, ge=1, le=1_000_000, description="Rows of a shard: what a kill may have to answer again, at most."
    )
    budget_usd: float | None = Field(
        None, ge=0, description="Hard cap on what this run buys, dollars; empty: the use case's budget_usd."
    )
    in_flight: int = Field(
        0, ge=0, le=1_000, description="Requests in flight at a model over HTTP; 0: traffic.concurrency."
    )
    batches: bool = Field(
        False, description="Ask through the provider's batch interface, at its price; it may take a day."
    )
    share: str = Field(
        "1/1",
        pattern=r"^[0-9]{1,4}/[0-9]{1,4}$",
        description="Which part of the shards this run answers: 2/4 is the second of four, for four runs (machines) "
        "that are given the same source and target.",
    )

    @field_validator("share")
    @classmethod
    def _share_is_one_of_them(cls, share: str) -> str:
        mine, of = map(int, share.split("/"))
        if not 1 <= mine <= of:
            raise ValueError(f"{share} is no part: write 1/4, 2/4, 3/4 or 4/4")
        return share

    def is_mine(self, number: int) -> bool:
        """Whether this run answers the shard of a number, counted from 0."""
        mine, of = map(int, self.share.split("/"))
        return number % of == mine - 1
