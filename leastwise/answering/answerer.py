"""What answers rows for a candidate, whatever it is made of: a model over HTTP, trained weights, a student, or one of
these behind a cascade, a guard or a cache.

It scores nothing. Who stands behind a candidate is put together in `leastwise.answering.answerers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from leastwise.metrics.answer import Answer
from leastwise.stores.caps import Purpose
from leastwise.use_case.price import Price

if TYPE_CHECKING:
    import pandas as pd


class Outage(RuntimeError):  # noqa: N818 - says what happened
    """The infrastructure lost what a measurement cannot do without; evidence of nothing, a rerun measures it again."""


@dataclass(frozen=True)
class Payer:
    """Which stage pays for calls, and what for."""

    stage: str
    purpose: Purpose


class Answerer(Protocol):
    """Answers rows (columns id and text) and says what a request costs and takes."""

    @property
    def price(self) -> Price | None:
        """Dollars per million tokens; None where machines are paid instead."""
        ...

    @property
    def usd_worst_case(self) -> float:
        """The most one request may cost by its tokens."""
        ...

    @property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month."""
        ...

    @property
    def uncached(self) -> Answerer:
        """Who answers behind a response cache; itself where there is none."""
        ...

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows."""
        ...

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The very same asked once more, past what is stored."""
        ...

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Several answers to each row, sampled at this temperature; empty where it cannot be sampled."""
        ...

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """The latency over HTTP of every row in milliseconds; None where the infrastructure lost the request."""
        ...

    def figures(self) -> dict[str, float]:
        """What is reported of the answering itself."""
        ...


class PlainAnswerer:
    """What answerers have in common that stand behind nothing and cannot be sampled."""

    @property
    def uncached(self) -> Self:
        """Itself: there is no cache in front."""
        return self

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Nothing: it always answers the same way."""
        return []

    def figures(self) -> dict[str, float]:
        """Nothing beyond the answers."""
        return {}


def latencies_of(answers: list[Answer]) -> list[float | None]:
    """The latency each answer came with, milliseconds; None where it was lost, or never came over HTTP."""
    return [None if each.text is None else each.latency_ms for each in answers]
