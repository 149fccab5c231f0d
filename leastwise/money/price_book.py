"""Dollars of one request, from a dated price book: tokens, cached reads, cache writes, batch and tiers; GPU-hours too.

It reads no file and no network: the YAML of overrides is handed in as a dict, and list prices come from the data that
ship with `genai-prices`, as of the book's date. It never prices totals (tiers apply to each request) and knows no
prices for images, audio, tools or a provider's storage of a cache.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from pydantic import Field

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.use_case import UseCase
from leastwise.use_case.price import Gpu, Price, Rates, Tier, TrainingPrice, Usd

if TYPE_CHECKING:  # a training process prices nothing, and imports this room for its token counts
    from genai_prices.types import ModelPrice, TieredPrices

DAYS_UNTIL_STALE = 90
LISTED_URI = re.compile(
    r"^(openai(?:-decisions)?|anthropic|google|azure|bedrock|openrouter|together|fireworks|deepseek):(.+)$"
)
LISTED_AS = {"bedrock": "aws"}  # what the list of prices calls a provider, where that is another name


class UnknownPrice(BadInput):
    """No price is known for a model; the message says how to add one."""


class ManagedHost(Part):
    """What a pay-per-token host charges for open or own weights, by model."""

    as_of: date | None = Field(None, description="Day these prices were looked up; empty: the price book's.")
    minimum_usd_per_month: Usd = Field(0.0, description="Least the host bills in a month, used or not.")
    models: dict[str, Price] = Field(description="Price by model URI.")


class PriceBook(Part):
    """Every price a report may use, on one date. Build it from the YAML's dict with `PriceBook.model_validate`."""

    as_of: date = Field(description="Day the book was checked; every figure in a report names it.")
    overrides: dict[str, Price] = Field({}, description="Price by model URI; goes before the provider's list price.")
    gpu_hours: dict[Gpu, Usd] = Field({}, description="Dollars an hour of one GPU with its machine.")
    training: dict[str, TrainingPrice] = Field({}, description="What a host charges for training, by the base's URI.")
    managed: dict[str, ManagedHost] = Field({}, description="Pay-per-token hosts by name.")

    def price(self, model_uri: str, host: str | None = None) -> Price:
        """The price of a model: at the managed host if one is named, else the override, else the provider's list price,
        else that of the only managed host that offers it.

        Raises UnknownPrice, also where several hosts offer it; never returns 0 for want of a price.
        """
        price = None if host is not None else self.overrides.get(model_uri) or self._listed(model_uri)
        offers = [self._offer(model_uri, name) for name in self.managed if host in (None, name)]
        prices = [offer for offer in offers if offer is not None]
        if price is None and len(prices) == 1:
            price = prices[0]
        if price is None:
            raise UnknownPrice(_how_to_add(model_uri, host))
        return price if price.as_of else price.model_copy(update={"as_of": self.as_of})

    def gpu_usd_per_hour(self, gpu: Gpu) -> float:
        """Dollars an hour of one GPU."""
        if gpu not in self.gpu_hours:
            raise UnknownPrice(f"no price for an hour of {gpu}; add it to the price book: gpu_hours: {{{gpu}: 1.23}}")
        return self.gpu_hours[gpu]

    def training_price(self, base_uri: str) -> TrainingPrice:
        """What the host of these open weights charges for training on them; UnknownPrice where nobody wrote it down."""
        if base_uri not in self.training:
            how = "{usd_per_million_tokens: …, source: …, as_of: …}"
            raise UnknownPrice(
                f"training.managed.price: no price for training {base_uri}; read it at its host and write price: "
                f'{how} there, or training: {{"{base_uri}": {how}}} in the price book'
            )
        return self.training[base_uri]

    def stale(self, today: date) -> str | None:
        """A warning naming every part of the book older than 90 days, or None."""
        hosts = {f"managed.{name}": host.as_of for name, host in self.managed.items()}
        models = {f"overrides.{uri}": price.as_of for uri, price in self.overrides.items() if not price.illustrative}
        trained = {f"training.{uri}": price.as_of for uri, price in self.training.items()}
        dated = {"the book": self.as_of} | {k: day for k, day in (hosts | models | trained).items() if day}
        old = {what: (today - day).days for what, day in dated.items() if (today - day).days > DAYS_UNTIL_STALE}
        if not old:
            return None
        parts = ", ".join(f"{what} {days} days" for what, days in old.items())
        return f"prices older than {DAYS_UNTIL_STALE} days: {parts}; check them and set as_of in the price book"

    def _offer(self, model_uri: str, name: str) -> Price | None:
        host = self.managed[name]
        price = host.models.get(model_uri)
        return price.model_copy(update={"as_of": price.as_of or host.as_of}) if price else None

    def _listed(self, model_uri: str) -> Price | None:
        named = LISTED_URI.match(model_uri)
        return _list_price(LISTED_AS.get(named[1], named[1]), named[2], self.as_of) if named else None


def _how_to_add(model_uri: str, host: str | None) -> str:
    place = f"managed: {{{host}: {{models:" if host is not None else "overrides:"
    closing = "}}" if host is not None else ""
    return (
        f"no price for {model_uri}{f' at {host}' if host is not None else ''}; add it to the price book, in dollars "
        f'per million tokens: {place} {{"{model_uri}": {{input: 1.0, cached: 0.1, output: 4.0}}}}{closing}, '
        "or give the model a price in the use case"
    )


@cache
def _list_price(provider: str, model: str, as_of: date) -> Price | None:
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    # A snapshot of our own, since the library's global one can be replaced by a network refresh elsewhere.
    try:
        _, info = DataSnapshot(providers, from_auto_update=False).find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    noon = datetime.combine(as_of, time(12), UTC)
    standard, batch = info.get_prices(noon), info.get_prices(noon, {"processing": "batch"})
    if standard.input_mtok is None:
        return None
    rates, tiers = _rates(standard)
    if batch == standard:
        return Price(**rates.model_dump(), tiers=tiers, as_of=as_of)
    batch_rates, batch_tiers = _rates(batch)
    return Price(**rates.model_dump(), tiers=tiers, batch=batch_rates, batch_tiers=batch_tiers, as_of=as_of)


def _rates(listed: ModelPrice) -> tuple[Rates, tuple[Tier, ...]]:
    rates = (price for price in _listed_rates(listed).values() if price is not None)
    tiered = [price for price in rates if not isinstance(price, Decimal)]
    starts = sorted({tier.start for price in tiered for tier in price.tiers})
    tiers = tuple(Tier(above_input_tokens=start, **_rates_at(listed, start + 1)) for start in starts)
    return Rates(**_rates_at(listed, 0)), tiers


def _listed_rates(listed: ModelPrice) -> dict[str, Decimal | TieredPrices | None]:
    return {
        "input": listed.input_mtok,
        "cached": listed.cache_read_mtok,
        "cache_write": listed.cache_write_mtok,
        "output": listed.output_mtok,
    }


def _rates_at(listed: ModelPrice, input_tokens: int) -> dict[str, float]:
    rates = {name: _at(price, input_tokens) for name, price in _listed_rates(listed).items() if price is not None}
    return {"output": 0.0} | rates  # embeddings list no output price, since they have no output


def _at(price: Decimal | TieredPrices, input_tokens: int) -> float:
    if isinstance(price, Decimal):
        return float(price)
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return float(reached[-1] if reached else price.base)


def priced(use_case: UseCase, book: PriceBook) -> UseCase:
    """The use case with the price book's dollars of its training, where it names none: an hour of its GPUs, a million
    tokens at its host.
    """
    training, changes = use_case.training, dict[str, object]()
    if training.gpu is not None and not training.usd_per_hour:
        changes["usd_per_hour"] = book.gpu_usd_per_hour(training.gpu) * training.launch.processes
    if (managed := training.managed) and managed.price is None:
        changes["managed"] = managed.model_copy(update={"price": book.training_price(managed.base.uri)})
    return use_case.model_copy(update={"training": training.model_copy(update=changes)}) if changes else use_case
