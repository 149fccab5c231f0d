"""The client of a model for code that is not async. It adds nothing to `leastwise.endpoints.inference` but the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Required, Self, TypedDict, Unpack

from leastwise.endpoints.inference import AsyncAsker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Request, Target
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.ledger import Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.price import Usage


class Options(TypedDict, total=False):
    """What `AsyncAsker` takes beside its target."""

    store: Required[ResponseStore]
    price: Required[Callable[[Usage], float]]
    meter: Meter | None
    concurrency: int
    timeout_s: float
    attempts: int
    warm_first: bool
    place: str | None
    memory: Remembered | None


class Asker:
    """`AsyncAsker` for code that is not async: a context manager with its own event loop, reused by every `ask`.

    It cannot be used inside a running event loop.
    """

    def __init__(self, target: Target, **options: Unpack[Options]) -> None:
        self._runner = asyncio.Runner()
        self._asker = AsyncAsker(target, **options)

    @property
    def target(self) -> Target:
        """Who is asked."""
        return self._asker.target

    @property
    def offers_constraints(self) -> bool:
        """As `AsyncAsker.offers_constraints`."""
        return self._asker.offers_constraints

    @property
    def meter(self) -> Meter | None:
        """Who pays; None where calls are free."""
        return self._asker.meter

    def ask(self, requests: Sequence[Request], on_reply: Callable[[Reply], None] | None = None) -> list[Reply]:
        """As `AsyncAsker.ask`."""
        return self._runner.run(self._asker.ask(requests, on_reply))

    def time(self, requests: Sequence[Request]) -> list[float]:
        """As `AsyncAsker.time`."""
        return self._runner.run(self._asker.time(requests))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._asker.aclose())
        self._runner.close()
