"""What an exception says of a call: whether it is tried again, whether it may be billed, and what a person must do.

It tries nothing again itself. Only what the network or the provider did wrong is a failure; an error of our own is
none, and is for the caller to raise. A body that holds an answer is none either, whatever the client made of it: the
caller looks there first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leastwise.endpoints.bodies import body_of, is_page
from leastwise.endpoints.received import CONTENT_FILTER, error_in
from leastwise.errors import BadInput, TextTooLong
from leastwise.redaction import redacted

if TYPE_CHECKING:
    import httpx2

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
UNREACHABLE = "unreachable"
NO_ANSWER = "envelope"  # something came, and there is no answer in it
WEB_PAGE = "web page"  # a gate before the interface, which may open, or the wrong address
SELDOM_PASSING = frozenset({UNREACHABLE, NO_ANSWER, WEB_PAGE, "200"})  # by itself; 200: an error that came as success
SHOWN_CHARACTERS = 500

TELLING_STATUSES = frozenset({400, 413, 422})  # which say anything; the others say it by themselves
TOO_LONG_REMEDY = "the prompt is longer than the model takes here; set the model's context_tokens to what it does take"
REFUSING_STATUSES = frozenset({200, 400, 403, 422, 451})
CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "content_filtered",
        "content_blocked",
        "data_inspection_failed",
        "datainspectionfailed",
        "moderation_blocked",
        "moderation",
        "responsibleaipolicyviolation",
        "prompt_blocked",
        "sensitive_content",
        "unsafe_content",
        "safety",
        "safety_block",
        "1301",
    }
)
WORDS = re.compile(
    r"content (management )?(filter|policy|policies|moderation|exists risk)|content[_-]?filter|inappropriate content|"
    r"(sensitive|harmful|unsafe|prohibited|objectionable|disallowed|explicit) (content|words?|material|input)|"
    r"safety (system|polic|filter|setting|guideline|reason)|usage polic|"
    r"(input|prompt|content|text|message) was flagged|"
    r"(requires|failed|blocked by|rejected by|did not pass) (the )?(content )?(moderation|guardrail|safety)|"
    r"敏感|不安全|违规|不当内容",
    re.IGNORECASE,
)
ABOUT_THE_CUSTOMER = re.compile(
    r"\b(account|organi[sz]ation|api[ _]?key|project|subscription)\b[^.]*"
    r"\b(suspended|deactivated|disabled|banned|terminated|restricted|blocked|flagged)",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum (context|prompt|input|sequence)|too many (input )?tokens|"
    r"(prompt|input|request|message\w*) (is|are|was) too long|"
    r"exceeds? (the )?(available )?(context|max\w* (input|tok|number of (input )?tok))|"
    r"reduce the length|max_model_len",
    re.IGNORECASE,
)
WRONG_KEY = re.compile(
    r"(invalid|incorrect|wrong|expired|missing) (api|access)[ _]?key|(api|access)[ _]?key[^.]{0,40}"
    r"(invalid|not valid|incorrect|expired|missing)|API_KEY_INVALID",
    re.IGNORECASE,
)
NO_SUCH_MODEL = re.compile(
    r"model_not_found|not a valid model|model identifier is invalid|"
    r"(model|deployment)\b.{0,80}?(does not exist|not found|not exist|"
    r"is not available|has been (deprecated|retired|removed)|is deprecated)",
    re.IGNORECASE,
)
TOO_MANY_LABELS = re.compile(
    r"too many (options|choices|criteria)|at most \d+ (options|choices|criteria)", re.IGNORECASE
)
TOO_MANY_REMEDY = "the task has more labels than this decision model takes; name another model, or split the task"
ELSEWHERE = (
    "it sends requests on to another host, and neither texts nor keys are sent there; set base_url (and key_variable) "
    "to the host that is meant"
)
PUT_RIGHT = {
    401: "the key is refused; set a valid one for this endpoint, in the variable that key_variable names on the model",
    402: "the account is not paid for; top it up",
    403: "the key has no leave for this; ask whoever runs the endpoint, or use another key",
    404: "no such model or address; check the model's name (served_name: what it is called there), base_url",
}


@dataclass(frozen=True)
class Failure:
    """A call that brought no complete answer; `is_billed` when the provider may charge for it all the same.

    `kind` is `content_filter` where the provider refused the content, which is the model's answer. `remedy` is what a
    person must do before anything more can be asked.
    """

    message: str
    is_retried: bool
    is_billed: bool
    kind: str = ""
    is_rate_limited: bool = False
    retry_after_s: float | None = None
    remedy: str | None = None

    @property
    def finish_reason(self) -> str:
        """Of the answer that is not there: `length` where its text is longer than the model takes."""
        return "length" if self.remedy == TOO_LONG_REMEDY else "error"

    def refused(self, where: str) -> BadInput:
        """What to raise where a person must put something right first."""
        kind = TextTooLong if self.remedy == TOO_LONG_REMEDY else BadInput
        return kind(f"{where}: {self.remedy} ({self.message})")


@dataclass
class Wire:
    """How far one call got, as the HTTP client saw it, and the status and body it was answered with."""

    was_sent: bool = False
    was_answered: bool = False
    status: int = 0
    body: bytes = b""
    sent_on_to: str | None = None


class SentElsewhere(Exception):  # noqa: N818 - says what happened
    """An endpoint sends a request on to another host, where neither texts nor keys belong."""


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


def note_sent() -> None:
    """The call that is watched is on its way: for clients that take no `HOOKS`."""
    if wire := _wire.get():
        wire.was_sent = True


def note_answered(status: int, body: bytes) -> None:
    """The call that is watched was answered so: for clients that take no `HOOKS`."""
    if wire := _wire.get():
        wire.was_answered, wire.status, wire.body = True, status, body


async def _note_request(_: httpx2.Request) -> None:
    note_sent()


async def _note_response(response: httpx2.Response) -> None:
    """Also stops what is sent on to another host before it goes there."""
    if wire := _wire.get():
        wire.was_answered, wire.status = True, response.status_code
        wire.body = await response.aread()
        asked, meant = response.request.url, response.request.url.join(response.headers.get("location", ""))
        is_made_safe = (asked.scheme, meant.scheme) == ("http", "https")
        is_elsewhere = asked.host != meant.host or (asked.port != meant.port and not is_made_safe)
        if response.has_redirect_location and is_elsewhere:
            wire.sent_on_to = meant.host
            raise SentElsewhere(meant.host)


HOOKS: dict[str, list[Callable[..., Awaitable[None]]]] = {"request": [_note_request], "response": [_note_response]}


def failure_of(error: BaseException, wire: Wire) -> Failure | None:
    """What the exception of a call means; None where it is no failure of the transport (a defect, a cancellation)."""
    from pydantic_ai.exceptions import (
        ContentFilterError,
        ModelAPIError,
        ModelHTTPError,
        ModelQuotaExceededError,
        UnexpectedModelBehavior,
    )

    message = shown(f"{type(error).__name__}: {error}")
    if wire.sent_on_to:
        return Failure(shown(f"sent on to {wire.sent_on_to}"), False, False, "redirect", remedy=ELSEWHERE)
    if isinstance(error, ModelHTTPError):
        is_quota = isinstance(error, ModelQuotaExceededError)
        return failure_told(error.status_code, error.body, message, error.retry_after, is_quota=is_quota)
    if isinstance(error, ModelAPIError):
        if cause := _never_connected(error):
            return Failure(shown(f"nobody listens there: {cause}"), True, False, UNREACHABLE)
        return Failure(message, True, True, "transport")
    if isinstance(error, ContentFilterError):
        return Failure(message, False, True, CONTENT_FILTER)
    # An envelope of the wrong shape surfaces as whatever the SDK trips over first; before there is one, the same kinds
    # of error are of our own making.
    is_envelope = wire.was_answered and isinstance(error, (LookupError, TypeError, ValueError, AttributeError))
    if not is_envelope and not isinstance(error, UnexpectedModelBehavior):
        return None
    told = error_in(body_of(wire.body))
    if told is None:
        if is_page(wire.body):
            words = f"a web page came, and no answer: check that base_url is the address of its interface ({message})"
            return Failure(words, True, True, WEB_PAGE)
        return Failure(message, True, True, NO_ANSWER)
    failure = failure_told(_status(told.get("code"), wire.status), told, shown(f"{wire.status} with an error: {told}"))
    return replace(failure, is_billed=failure.kind != CONTENT_FILTER)


def failure_told(
    status: int, body: object, message: str, retry_after_s: float | None = None, *, is_quota: bool = False
) -> Failure:
    """What an error that the provider words itself means; `body` is the error it sent, or what holds it."""
    told = error_in(body) or (body if isinstance(body, Mapping) else {})
    code, words = told.get("code") or told.get("type"), str(told.get("message") or body or message)
    if refuses_content(status, code, words):
        return Failure(message, False, False, CONTENT_FILTER)
    is_retried = (status in RETRIED_STATUSES or status >= 500 or status < 300) and not is_quota
    remedy = remedy_of(status, f"{code}: {words}", is_quota=is_quota)
    return Failure(message, is_retried, False, str(status), status == 429, retry_after_s, remedy)


def refuses_content(status: int, code: object, message: str) -> bool:
    """Whether this is a provider's refusal of what was asked: the model's answer, as docs/gate.md says."""
    if status not in REFUSING_STATUSES or ABOUT_THE_CUSTOMER.search(message):
        return False
    return str(code).casefold() in CODES or bool(WORDS.search(message))


def remedy_of(status: int, message: str, *, is_quota: bool = False) -> str | None:
    """What a person must do before anything more can be asked; None where that does not help."""
    if is_quota:
        return PUT_RIGHT[402]
    if status in TELLING_STATUSES:
        if TOO_LONG.search(message):
            return TOO_LONG_REMEDY
        if TOO_MANY_LABELS.search(message):
            return TOO_MANY_REMEDY
        if WRONG_KEY.search(message):
            return PUT_RIGHT[401]
        if NO_SUCH_MODEL.search(message):
            return PUT_RIGHT[404]
    return PUT_RIGHT.get(status)


def shown(message: str) -> str:
    """As much of a message as is shown, without keys, which some providers repeat."""
    return redacted(message)[:SHOWN_CHARACTERS]


def _status(code: object, otherwise: int) -> int:
    """The HTTP status an error envelope speaks of, where its code is one."""
    number = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    return number if 400 <= number < 600 else otherwise


def _never_connected(error: BaseException) -> BaseException | None:
    """What kept a call from being sent at all; the SDKs wrap it, aiohttp's even as a timeout."""
    cause: BaseException | None = error
    while cause is not None:
        name = type(cause).__name__
        if "ConnectError" in name or "ConnectorError" in name or isinstance(cause, ConnectionRefusedError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
