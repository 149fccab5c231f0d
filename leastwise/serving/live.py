"""What a version of the registered model is while it answers requests. How one is opened is said in `opening.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from leastwise.metrics.answer import Answer


class LiveModel(Protocol):
    """A version that answers; many requests may be in flight at once."""

    @property
    def version(self) -> str:
        """Its version in the registry."""
        ...

    @property
    def key(self) -> str:
        """The candidate's key."""
        ...

    @property
    def mask(self) -> tuple[str, ...]:
        """The kinds of personal data that are kept of no text it is asked."""
        ...

    async def answer(self, text: str) -> Answer:
        """The answer to one text, with the label it means; where it was lost, `text` is None and `error` says why, and
        `finish_reason` is TOO_LONG where no model could have read it.
        """
        ...

    async def aclose(self) -> None:
        """End what it started; nothing is in flight any longer."""
        ...


TOO_LONG = "length"  # the provider layer's word, of an answer or of one that is not there


def prediction_of(answer: Answer, version: str) -> dict[str, object]:
    """An answer as whoever asks a model of MLflow's reads it, at the endpoint as of the model itself."""
    said: dict[str, object] = {"answer": answer.text, "label": answer.label, "confidence": answer.confidence}
    return said | {"usd": answer.usd, "version": version}


Opener = Callable[[str], Awaitable[LiveModel]]  # opens a version of the registered model, in seconds; may raise
