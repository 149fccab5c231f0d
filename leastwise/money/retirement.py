"""Which models are gone or going, from dated data that ship with the price book, and how that is said.

It asks no provider and knows no clock: the day is handed in. A model that is not in the book may be going all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator

from leastwise.part import Part

DAYS_BEFORE = 60
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


class Retirement(Part):
    """When a model is switched off."""

    last_day: date = Field(description="The last day it answers.")
    basis: Literal["announced", "reported"] = Field(
        description="announced: read at its provider's own place; reported: others say that the provider says so."
    )
    successor: str | None = Field(
        None, description="URI of the model that takes its place; only where its provider names one."
    )
    source: str = Field(min_length=1, description="Where that stands, and when it was looked up.")

    @model_validator(mode="after")
    def _successor_is_its_providers_word(self) -> Self:
        if self.successor and self.basis == "reported":
            raise ValueError("successor: only a provider names one, and this is reported of it; leave it out")
        return self


def retirement_warnings(uris: Iterable[str], book: Mapping[str, Retirement], today: date) -> tuple[str, ...]:
    """One sentence for every named model that is gone, or goes within DAYS_BEFORE days."""
    found = ((uri, _retirement(uri, book)) for uri in dict.fromkeys(uris))
    return tuple(
        _warning(uri, each, today) for uri, each in found if each and (each.last_day - today).days <= DAYS_BEFORE
    )


def _retirement(uri: str, book: Mapping[str, Retirement]) -> Retirement | None:
    """Of the model itself, else of the one it is a dated snapshot of."""
    return book.get(uri) or book.get(_SNAPSHOT.sub("", uri))


def _warning(uri: str, retirement: Retirement, today: date) -> str:
    days = (retirement.last_day - today).days
    when = f"is gone since {retirement.last_day}" if days < 0 else f"goes on {retirement.last_day}, in {days} days"
    when += ", as is reported, not announced" if retirement.basis == "reported" else ""
    instead = f"; name {retirement.successor} instead" if retirement.successor else "; name another model"
    return f"{uri} {when} ({retirement.source}){instead}, for what is measured of it will not hold"
