"""What a model charges, as a person writes it down, and what one request costs at that.

It knows no model by name (see `leastwise.money.price_book`) and never prices totals: tiers apply to each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from leastwise.errors import BadInput
from leastwise.part import Part

Gpu = Literal["A10G", "L4", "A100", "H100", "H200"]


Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. Cached reads and cache writes are both part of `input_tokens`, as clients report them."""

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        counts = (self.input_tokens, self.cached_tokens, self.cache_write_tokens, self.output_tokens)
        if min(counts) < 0:
            raise BadInput(f"{self}: token counts cannot be negative; check how the client's usage is read")
        if self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            raise BadInput(
                f"{self}: cached and written tokens are part of input_tokens and cannot exceed them; "
                "add them to input_tokens where the client reports them apart"
            )


class Rates(Part):
    """Dollars per million tokens."""

    input: Usd = Field(description="Dollars per million uncached input tokens.")
    cached: Usd | None = Field(None, description="Dollars per million cached reads; empty: as input.")
    cache_write: Usd | None = Field(None, description="Dollars per million cache writes; empty: as input.")
    output: Usd = Field(description="Dollars per million output tokens; 0 only for embeddings.")

    @model_validator(mode="after")
    def _cached_is_no_dearer(self) -> Self:
        if self.cached is not None and self.cached > self.input:
            raise ValueError(f"cached: {self.cached:g} is dearer than input {self.input:g}; were the two swapped?")
        return self

    def usd_at_rates(self, usage: Usage) -> float:
        """Dollars of one request at these very rates, whatever its length."""
        cached = self.input if self.cached is None else self.cached
        write = self.input if self.cache_write is None else self.cache_write
        plain_tokens = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        per_million = (
            plain_tokens * self.input
            + usage.cached_tokens * cached
            + usage.cache_write_tokens * write
            + usage.output_tokens * self.output
        )
        return per_million / MILLION

    @property
    def dearest_input(self) -> float:
        """The most a million input tokens can cost: all of them written to the cache, if that carries a premium."""
        return max(self.input, self.cache_write or 0.0)


class Tier(Rates):
    """Rates of a whole request (not only of the excess) once its input is longer than a threshold."""

    above_input_tokens: int = Field(ge=1, description="The tier applies to requests with more input tokens than this.")


class Price(Rates):
    """What a model charges, in dollars per million tokens."""

    batch_discount: float = Field(0.0, ge=0, le=1, description="Share off every rate when sent as a batch; 0.5: half.")
    batch: Rates | None = Field(None, description="Batch rates where they are no plain discount; replaces it.")
    batch_tiers: tuple[Tier, ...] = Field((), description="Tiers of the batch rates.")
    tiers: tuple[Tier, ...] = Field((), description="Dearer rates for long requests.")
    as_of: date | None = Field(None, description="Day the price was looked up; empty: the price book's.")
    illustrative: bool = Field(False, description="True: made up for the embedded models; nobody charges it.")

    def usd(self, usage: Usage, batch: bool = False) -> float:
        """Dollars of ONE request; its own input length picks the tier, so never pass a total."""
        if batch and self.batch is not None:
            return _tier(self.batch, self.batch_tiers, usage.input_tokens).usd_at_rates(usage)
        usd = _tier(self, self.tiers, usage.input_tokens).usd_at_rates(usage)
        return usd * (1 - self.batch_discount) if batch else usd

    def worst_case_usd(self, input_tokens: int, max_output_tokens: int) -> float:
        """The most one request can cost: no cache hit, every input token written to the cache, in the dearest tier."""
        Usage(input_tokens=input_tokens, output_tokens=max_output_tokens)
        reachable = [self, *(tier for tier in self.tiers if input_tokens > tier.above_input_tokens)]
        return max((r.dearest_input * input_tokens + r.output * max_output_tokens) / MILLION for r in reachable)


class TrainingPrice(Part):
    """What a host charges for training, in dollars per million tokens of the file, each pass counted."""

    usd_per_million_tokens: Usd = Field(description="Dollars per million training tokens: tokens of the file × epochs.")
    source: str = Field(min_length=1, description="Where that stands.")
    as_of: date = Field(description="Day somebody looked there.")

    def usd(self, tokens: float) -> float:
        """Dollars of training on so many tokens, each pass counted."""
        return tokens * self.usd_per_million_tokens / MILLION

    def in_words(self, tokens: float) -> str:
        """The arithmetic, with source and day."""
        rate = f"${self.usd_per_million_tokens:.4g} a million ({self.source}, {self.as_of})"
        return f"{tokens:,.0f} tokens × {rate} = ${self.usd(tokens):.4g}"


def _tier(base: Rates, tiers: tuple[Tier, ...], input_tokens: int) -> Rates:
    reached = [tier for tier in tiers if input_tokens > tier.above_input_tokens]
    return max(reached, key=lambda tier: tier.above_input_tokens, default=base)
