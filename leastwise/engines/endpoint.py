"""Somebody else's endpoint as an engine: started and ended by nobody here, with a name and a sign of life.

What it can is found out by asking it (see `leastwise.endpoints.habits`); it is asked nothing here but whether it is
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from leastwise.endpoints.request import Endpoint
from leastwise.engines import processes
from leastwise.engines.engine import AtWork, Capabilities, Running, ToServe
from leastwise.errors import BadInput

UNKNOWN = Capabilities()


@dataclass(frozen=True)
class ForeignEndpoint:
    """An address that somebody serves a model at; `base_url` as a use case names it."""

    base_url: str
    name: str = "the endpoint"
    computes_as: str = ""  # its address is part of the key of its answers
    capabilities: Capabilities = UNKNOWN

    @contextmanager
    def serving(self, what: ToServe) -> Iterator[Running]:
        """Whoever serves there, as it is. BadInput for adapters: nobody here puts weights behind that address."""
        if what.adapters:
            raise BadInput(f"{self.base_url}: is somebody else's, who serves none of our adapters; serve them here")
        yield ForeignServer(Endpoint(self.base_url, what.name))


@dataclass(frozen=True)
class ForeignServer:
    """As it is while nobody here can start or end it."""

    where: Endpoint

    @property
    def names(self) -> tuple[str, ...]:
        """The one name that is known of it."""
        return (self.where.model,)

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Its address; KeyError for another name."""
        return {self.where.model: self.where}[self.where.model if name is None else name]

    def is_healthy(self) -> bool:
        """Whether it lists its models, or asks who we are."""
        return processes.is_up(f"{self.where.base_url.rstrip('/')}/models")

    def at_work(self) -> AtWork | None:
        """Nothing: what others do there is not ours to see."""
        return None

    def drain(self, within_s: float) -> bool:
        """Nothing to do: it is not ended here."""
        return True

    def stop(self) -> None:
        """Nothing: it is not ours."""
