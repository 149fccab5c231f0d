"""Models by date: when each came, when it goes, what takes its place; and what of that is a warning on a given day.

It asks no provider and knows no clock: book and day are handed in. A model that is not in the book may be going all
the same, and nothing is refused because of what stands here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, model_validator

from leastwise.money.economics import DAYS_PER_MONTH
from leastwise.part import Part
from leastwise.use_case.habits import Reasoning

DAYS_BEFORE = 60  # from when on a model that goes is warned of
DAYS_UNTIL_STALE = 60  # of an entry, after the day it was checked
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


class Drafted(Part):
    """What a drafted use case says of a small model that is a fair first one to try; a hosted one, asked as an api."""

    host: str = Field(min_length=1, description="Host that requests go to.")
    context_tokens: int = Field(ge=1024, description="Tokens that are counted on, few enough to reserve money for.")
    reasoning: Reasoning = Field("none", description="Reasoning effort that it is asked with.")


class ModelEntry(Part):
    """What is known of one model's dates, where that stands, and when somebody looked."""

    uri: str = Field(min_length=1, description="The model, as a use case names it.")
    released: date | None = Field(None, description="First day it could be asked; empty: not looked up.")
    retires: date | None = Field(None, description="The last day it answers; empty: none is known.")
    basis: Literal["announced", "reported"] = Field(
        description="announced: read at its provider's own place; reported: others say that the provider says so."
    )
    replacement: str | None = Field(
        None, description="URI of the model that takes its place; only where its provider names one."
    )
    may_be_tuned: bool | date | None = Field(
        None, description="Whether its provider takes tuning jobs of it: yes, no, or the last day on which it does."
    )
    drafted: Drafted | None = Field(None, description="Where drafts name it: what they say of it. Small models only.")
    source: str = Field(min_length=1, description="Where that stands.")
    checked: date = Field(description="Day somebody last looked there.")

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.replacement and self.basis == "reported":
            raise ValueError("replacement: only a provider names one, and this is reported of it; leave it out")
        if self.released and self.retires and self.retires < self.released:
            raise ValueError(f"retires: {self.retires} is before it was released, {self.released}; correct one")
        return self

    def is_stale(self, today: date) -> bool:
        """Whether nobody looked for so long that a date may have been set or moved since; what is gone stays gone."""
        is_gone = self.retires is not None and self.retires < today
        return not is_gone and (today - self.checked).days > DAYS_UNTIL_STALE

    def goes_by(self, day: date) -> bool:
        """Whether it answers no more after that day."""
        return self.retires is not None and self.retires <= day


class ModelBook(Part):
    """Every model whose dates are known. Build it from the YAML's dict with `ModelBook.model_validate`."""

    as_of: date | None = Field(None, description="Day the book as a whole was last gone through.")
    models: tuple[ModelEntry, ...] = Field((), description="One entry a model.")

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        seen: set[str] = set()
        for each in self.models:
            if each.uri in seen:
                raise ValueError(f"models: {each.uri} stands there twice; keep the entry that was checked last")
            seen.add(each.uri)
        return self

    @cached_property
    def _by_uri(self) -> dict[str, ModelEntry]:
        return {each.uri: each for each in self.models}

    def entry(self, uri: str) -> ModelEntry | None:
        """Of the model itself, else of the one it is a dated snapshot of."""
        return self._by_uri.get(uri) or self._by_uri.get(_SNAPSHOT.sub("", uri))

    def drafted_by(self, provider: str, today: date) -> ModelEntry | None:
        """The model of a provider that drafts name on that day: the first in the book that does not go within
        DAYS_BEFORE days, else what takes its place where the book drafts that; None where there is none.
        """
        soon = today + timedelta(days=DAYS_BEFORE)
        held = [each for each in self.models if each.uri.partition(":")[0] == provider and each.drafted]
        held += [each for gone in held if gone.replacement and (each := self.entry(gone.replacement)) and each.drafted]
        return next((each for each in held if not each.goes_by(soon)), None)

    def with_announced(self, retires: Mapping[str, date], source: str) -> ModelBook:
        """The same with what a provider's own SDK says of models by URI: of one that stands here its day goes before
        what is only reported, and before a day that was read earlier than `as_of`.
        """
        if self.as_of is None or not retires:
            return self
        held = [self._announced(each, retires.get(each.uri), source, self.as_of) for each in self.models]
        more = (
            ModelEntry(uri=uri, retires=day, basis="announced", source=source, checked=self.as_of)
            for uri, day in retires.items()
            if uri not in self._by_uri
        )
        return ModelBook(as_of=self.as_of, models=(*held, *more))

    @staticmethod
    def _announced(entry: ModelEntry, day: date | None, source: str, as_of: date) -> ModelEntry:
        is_better_known = entry.basis == "announced" and entry.retires is not None and entry.checked >= as_of
        if day is None or day == entry.retires or is_better_known:
            return entry
        told = {"retires": day, "basis": "announced", "source": source, "checked": as_of}
        return entry.model_copy(update=told)

    def why_not_tuned(self, uri: str, today: date) -> str | None:
        """Why its provider takes no tuning job of a model on that day, with the source; None where it does, or where
        nobody wrote that down.
        """
        entry = self.entry(uri)
        if entry is None:
            return None
        said = f"{_said(entry)} ({entry.source}, looked at on {entry.checked})"
        if entry.retires is not None and entry.retires < today:
            return f"{uri} is gone since {entry.retires}{said}{_instead(entry)}"
        last = entry.may_be_tuned
        if last is False:
            return f"{uri} is tuned by nobody{said}{_instead(entry)}"
        if not isinstance(last, bool) and last is not None and last < today:
            return f"tuning jobs of {uri} were taken until {last}{said}{_instead(entry)}"
        return None

    def warnings(self, uris: Iterable[str], today: date) -> tuple[str, ...]:
        """One sentence for every named model that is gone or goes within DAYS_BEFORE days, and one for those whose
        entries nobody has looked at for longer than DAYS_UNTIL_STALE days.
        """
        found = [(uri, each) for uri in dict.fromkeys(uris) if (each := self.entry(uri))]
        soon = today + timedelta(days=DAYS_BEFORE)
        going = [_warning(uri, each, today) for uri, each in found if each.goes_by(soon)]
        stale = [f"{uri} {(today - each.checked).days} days" for uri, each in found if each.is_stale(today)]
        if stale:
            going.append(
                f"nobody looked for more than {DAYS_UNTIL_STALE} days whether and when it retires: {', '.join(stale)}; "
                "look at the provider's page and set checked in infra/models.yaml"
            )
        return tuple(going)

    def going_before_payback(self, uris: Iterable[str], months: Mapping[str, float], today: date) -> tuple[str, ...]:
        """One sentence for every named model that is there today and retires before something has paid for itself;
        `months` says in how many months each thing does.
        """
        found = [(uri, each) for uri in dict.fromkeys(uris) if (each := self.entry(uri)) and not each.goes_by(today)]
        late = {what: _after(today, count) for what, count in months.items()}
        said: list[str] = []
        for uri, each in found:
            unpaid = [f"{what} ({months[what]:.1f} months)" for what, day in late.items() if each.goes_by(day)]
            if unpaid:
                said.append(
                    f"{uri} retires on {each.retires}{_said(each)}, and these are paid back only later by the "
                    f"expected figures: {', '.join(unpaid)}{_instead(each)}"
                )
        return tuple(said)


NO_DATES = ModelBook()


def _after(today: date, months: float) -> date:
    try:
        return today + timedelta(days=months * DAYS_PER_MONTH)
    except OverflowError:  # in some thousand years
        return date.max


def _warning(uri: str, entry: ModelEntry, today: date) -> str:
    assert entry.retires is not None
    days = (entry.retires - today).days
    when = f"is gone since {entry.retires}" if days < 0 else f"goes on {entry.retires}, in {days} days"
    instead = _instead(entry) or "; name another model"
    return f"{uri} {when}{_said(entry)} ({entry.source}){instead}, for what is measured of it will not hold"


def _said(entry: ModelEntry) -> str:
    return ", as is reported, not announced" if entry.basis == "reported" else ""


def _instead(entry: ModelEntry) -> str:
    return f"; name {entry.replacement} instead" if entry.replacement else ""
