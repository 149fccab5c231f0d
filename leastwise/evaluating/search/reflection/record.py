"""What became of a reflection, as it is kept and shown. It decides nothing."""

from __future__ import annotations

from pydantic import Field

from leastwise.part import Result

AXIS = "reflection"


class Reflected(Result):
    """A reflection that came to its end, or was not begun."""

    model: str = Field(description="URI of the model that reflected, or would have.")
    why_not: str = Field("", description="Why it was not begun; empty where it was.")
    headroom: str = Field("", description="What the test of headroom said.")
    proposed: int = Field(0, description="Instructions that the model gave.")
    rejected: tuple[str, ...] = Field((), description="Why each of those that were never asked was not.")
    tried: int = Field(0, description="Instructions that were asked on all choosing rows.")
    before: float = Field(0.0, description="Quality of the instruction as it was, on the choosing rows.")
    after: float = Field(0.0, description="Quality of the best new one there.")
    rows: int = Field(0, description="Confirming rows that were asked.")
    gain: float = Field(0.0, description="Of the new one over the old on these, paired.")
    lower: float = Field(-1.0, description="Surely at least that gain, at every look.")
    upper: float = 1.0
    quality: float = Field(0.0, description="Of the new one on the confirming rows.")
    error: float = Field(0.0, description="Standard error of the gain.")
    tokens: float = Field(0.0, description="Input tokens of a request with the new one.")
    usd_a_request: float = 0.0
    instruction: str = Field("", description="The best new one, adopted or not.")
    is_adopted: bool = False
    calls: int = Field(0, description="Times the reflecting model was asked.")
    usd: float = Field(0.0, description="Of reflecting and asking, at today's prices.")
    ended: str = Field("", description="Why it ended where it did.")
    usd_short: float = Field(0.0, description="What going on costs at worst, where money ended it.")

    @property
    def is_short_of_money(self) -> bool:
        """Whether it ended for want of money."""
        return self.usd_short > 0

    @property
    def words(self) -> str:
        """In a sentence."""
        if self.why_not:
            return f"instruction as it was, {self.why_not}"
        said = f"{self.proposed} instructions by {self.model} ({len(self.rejected)} rejected, {self.tried} chosen from)"
        if self.rows:
            sure = "surely better" if self.is_adopted else "not surely better, the old one stays"
            said += f", best {self.gain:+.3f} [{self.lower:+.3f}, {self.upper:+.3f}] on {self.rows} other rows: {sure}"
        else:
            said += ", the old one stays"
        return f"{said}; {self.ended}" if self.ended else said
