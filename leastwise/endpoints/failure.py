"""What an exception says of a call: whether it is tried again, and whether it may be billed.

It tries nothing again itself. Only what the network or the provider did wrong is a failure; an error of our own is
none, and is for the caller to raise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.redaction import redacted

if TYPE_CHECKING:
    import httpx2

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
UNREACHABLE = "unreachable"
SHOWN_CHARACTERS = 500


@dataclass(frozen=True)
class Failure:
    """A call that brought no complete answer; `is_billed` when the provider may charge for it all the same."""

    message: str
    is_retried: bool
    is_billed: bool
    kind: str = ""
    is_rate_limited: bool = False
    retry_after_s: float | None = None


@dataclass
class Wire:
    """How far one call got, as the HTTP client saw it."""

    was_sent: bool = False
    was_answered: bool = False


_wire: ContextVar[Wire | None] = ContextVar("leastwise_wire", default=None)


@contextmanager
def watched() -> Iterator[Wire]:
    """How far the call in the block gets, if it is made with a client that has `HOOKS`."""
    wire = Wire()
    before = _wire.set(wire)
    try:
        yield wire
    finally:
        _wire.reset(before)


async def _note_request(_: httpx2.Request) -> None:
    if wire := _wire.get():
        wire.was_sent = True


async def _note_response(_: httpx2.Response) -> None:
    if wire := _wire.get():
        wire.was_answered = True


HOOKS: dict[str, list[Callable[..., Awaitable[None]]]] = {"request": [_note_request], "response": [_note_response]}


def failure_of(error: BaseException, wire: Wire) -> Failure | None:
    """What the exception of a call means; None where it is no failure of the transport (a defect, a cancellation)."""
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, ModelQuotaExceededError, UnexpectedModelBehavior

    message = redacted(f"{type(error).__name__}: {error}")[:SHOWN_CHARACTERS]
    if isinstance(error, ModelHTTPError):
        status = error.status_code
        is_retried = (status in RETRIED_STATUSES or status >= 500) and not isinstance(error, ModelQuotaExceededError)
        return Failure(message, is_retried, False, str(status), status == 429, error.retry_after)
    if isinstance(error, ModelAPIError):
        if cause := _never_connected(error):
            return Failure(redacted(f"nobody listens there: {cause}")[:SHOWN_CHARACTERS], True, False, UNREACHABLE)
        return Failure(message, True, True, "transport")
    if isinstance(error, UnexpectedModelBehavior):
        return Failure(message, True, True, "envelope")
    # An envelope of the wrong shape surfaces as whatever the SDK trips over first; before there is one, the same kinds
    # of error are of our own making.
    if wire.was_answered and isinstance(error, (LookupError, TypeError, ValueError, AttributeError)):
        return Failure(message, True, True, "envelope")
    return None


def _never_connected(error: BaseException) -> BaseException | None:
    """What kept a call from being sent at all; the SDKs wrap it, aiohttp's even as a timeout."""
    cause: BaseException | None = error
    while cause is not None:
        name = type(cause).__name__
        if "ConnectError" in name or "ConnectorError" in name or isinstance(cause, ConnectionRefusedError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
