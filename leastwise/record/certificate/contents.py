"""What a certificate of sufficiency says of a climb, as data. It is written in `writing.py` and held to itself in
`checking.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

from pydantic import Field

from leastwise.ladder.history import Record
from leastwise.part import Result
from leastwise.use_case import OnUndecided, Stage
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Price
from leastwise.use_case.requirements import Requirement, Requirements
from leastwise.use_case.settings import Hosting

FORMAT: Literal["leastwise-certificate/1"] = "leastwise-certificate/1"


class Wanted(Result):
    """What was asked for: the use case without its money, its texts and where its files are."""

    name: str
    description: str
    task: str = Field(description="classification, extraction or free_text.")
    requirements: Requirements
    alpha: float = Field(gt=0, lt=1, description="Probability of a false PASS over the whole ladder.")
    on_undecided: OnUndecided
    reference: Literal["report", "stop"]
    last_stage: Stage
    population: str = Field(description="Whether verdicts are of future traffic or of this very set.")
    unit_by: str | None = Field(description="Rows that share this column count once.")
    requests_per_month: int = Field(gt=0)

    @property
    def gate_requirements(self) -> tuple[Requirement, ...]:
        """The requirements as the gate judges them."""
        bounds = self.requirements.bounds
        return tuple(Requirement(name=name, bound=each.bound, margin=each.margin) for name, each in bounds.items())


class Table(Result):
    """A table the climb read; `rows` as they were used."""

    name: str
    sha256: str
    rows: int = Field(ge=0)


class PricedModel(Result):
    """A model the use case names, with the price its figures rest on, dollars per million tokens."""

    uri: str
    venue: Venue
    revision: str
    price: Price


class Prices(Result):
    """Every price, the day the price book was checked, and what machines and hosts are taken to cost."""

    book_as_of: date
    hosting: Hosting
    models: tuple[PricedModel, ...]


class Winner(Result):
    """The candidate that was enough, without its words: the record has those under its key."""

    key: str
    model: str
    revision: str
    venue: Venue
    weights: str | None = Field(None, description="Hash of the weights a stage made.")


class Figure(Result):
    """A plain figure on the untouched test split."""

    estimate: float
    n: int = Field(ge=0)


class Avoided(Result):
    """A stage above that could have been run and was not."""

    stage: Stage
    expected_usd: float = Field(ge=0)
    most_usd: float = Field(ge=0, description="Its worst case, as it is held against the budget.")


class Saving(Result):
    """What not climbing further saves, once, dollars. It is an estimate: nobody ran these stages."""

    avoided: tuple[Avoided, ...]
    expected_usd: float
    least_usd: float = Field(description="0: a stage may end at its first look.")
    most_usd: float


class Running(Result):
    """What the winner's requests cost, dollars: the gate's interval, at the use case's traffic."""

    usd_per_1k_requests: float
    least_usd_per_1k_requests: float
    most_usd_per_1k_requests: float
    usd_per_month: float
    least_usd_per_month: float
    most_usd_per_month: float


class Entry(Result):
    """One row of the ladder: the run that holds it in MLflow, and what it came to."""

    run_id: str
    record: Record


class Certificate(Result):
    """A climb that found what is enough."""

    format: Literal["leastwise-certificate/1"] = FORMAT
    wanted: Wanted
    mlflow_run_id: str
    outcome: Stage | Literal["reference"]
    sure: bool = Field(description="False: the gate was not sure; an estimate or a person's word decided.")
    reason: str
    winner: Winner | None = Field(description="None for the reference without an LLM.")
    ladder: tuple[Entry, ...] = Field(min_length=1, description="Row 0 where there is one, then stage by stage.")
    gate_hash: str = Field(description="Names the gate rows and their order.")
    alpha_drawn: float = Field(gt=0, lt=1, description="The share of alpha that the climb had of its gate rows.")
    confirmed: Literal["yes", "no", "not measured"]
    test: dict[str, Figure]
    data: tuple[Table, ...]
    prices: Prices
    saving: Saving
    running: Running | None = Field(description="None where cost was not required, so that it has no interval.")
    usd_spent: float = Field(ge=0)
    measured_at: datetime = Field(description="When the winner's measuring began; a climb that reuses it is later.")
    issued_at: datetime
    valid_days: int = Field(ge=1)
    expires_at: datetime
    ends_earlier: tuple[str, ...]
    versions: dict[str, str]

    def as_json(self) -> dict[str, object]:
        """Its fields as JSON has them; a number without end is the text `Infinity`."""
        written = _plain(self.model_dump(mode="json"))
        assert isinstance(written, dict)
        return written


def saving_of(avoided: Sequence[Avoided]) -> Saving:
    """What these stages would have cost, once."""
    return Saving(
        avoided=tuple(avoided),
        expected_usd=sum(each.expected_usd for each in avoided),
        least_usd=0.0,
        most_usd=sum(each.most_usd for each in avoided),
    )


def running_of(record: Record, requests_per_month: int) -> Running | None:
    """What the requests of a measured stage cost by its interval; None where cost was not required of it."""
    cost = record.evaluation.measurements.get("usd_per_1k_requests") if record.evaluation else None
    if cost is None:
        return None
    thousands, least = requests_per_month / 1000, max(0.0, cost.lower)
    return Running(
        usd_per_1k_requests=cost.estimate,
        least_usd_per_1k_requests=least,
        most_usd_per_1k_requests=cost.upper,
        usd_per_month=cost.estimate * thousands,
        least_usd_per_month=least * thousands,
        most_usd_per_month=cost.upper * thousands,
    )


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
