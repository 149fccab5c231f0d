"""What a call came to: an answer, whatever the provider's client made of its body, or a failure of the transport.

What was paid is kept: where it cannot be read it is kept as received, so that it is bought once. It sends and prices
nothing.
"""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any, TypedDict

from leastwise.endpoints.bodies import body_of
from leastwise.endpoints.failure import Failure, Wire, failure_of
from leastwise.endpoints.received import (
    CONTENT_FILTER,
    UNREADABLE,
    Received,
    log_probabilities,
    model_in,
    probabilities_in,
    received_of,
    reported_usage,
    stopped,
    tells_of_thinking,
    usage_of,
    well_formed,
)
from leastwise.endpoints.request import Request
from leastwise.metrics.thinking import shows_thinking, without_thinking
from leastwise.stores.answer_store import StoredAnswer, stored_now
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse

log = logging.getLogger(__name__)

ROUNDING = 1e-3  # how far above 0 a log-probability may be


class _Token(TypedDict):
    token: str
    logprob: float


def answer_of(
    received: Received, request: Request, latency_ms: float, details: dict[str, Any] | None, raw: str = ""
) -> StoredAnswer:
    """What was received as the answer to a request, received now; log-probabilities are among the `details`."""
    confidence = confidence_of(details) if request.wants_confidence else None
    text = well_formed(chosen_label(without_thinking(received.text), request))
    return stored_now(text, received.finish_reason, received.usage, latency_ms, confidence, raw, received.answered_by)


def thought(response: ModelResponse) -> bool:
    """Whether the model thought before it answered, as far as it shows."""
    reasoned = response.usage.details.get("reasoning_tokens") or 0
    return bool(response.thinking or reasoned or shows_thinking(response.text or ""))


def counts_thinking(wire: Wire) -> bool:
    """Whether what came counts tokens of thinking, also where the client could not read it."""
    return tells_of_thinking(body_of(wire.body))


def chosen_label(text: str, request: Request) -> str:
    """The label out of `{"label": …}`; what does not parse (cut off, say) is the model's answer as it stands."""
    if request.choices is None or not request.is_constrained:
        return text
    try:
        label = json.loads(text)["label"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return text
    return str(label) if isinstance(label, str | int | float) else text


def confidence_of(details: dict[str, Any] | None) -> float | None:
    """The probability of a whole answer, from the log-probabilities of its tokens; None where there are none.

    The mark that ends an answer says nothing of its content and is left out where it is there. What is no logarithm of
    a probability (not a number, above 0) makes the whole unknown.
    """
    try:
        every: list[_Token] = (details or {}).get("logprobs") or []
        logprobs = [float(token["logprob"]) for token in every if not token["token"].startswith("<|")]
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    if not logprobs or not all(value <= ROUNDING for value in logprobs):
        return None
    return min(1.0, math.exp(sum(logprobs)))


def answer_read(response: ModelResponse, wire: Wire, request: Request, latency_ms: float) -> StoredAnswer:
    """The answer in a provider's response; kept as received where an error of our own comes in the way."""
    try:
        return answer_of(_read(response, wire, request), request, latency_ms, response.provider_details)
    except Exception as error:
        log.exception("an answer that came cannot be read")
        return unreadable(error, wire, latency_ms)


def outcome_of(error: BaseException, wire: Wire, request: Request, latency_ms: float) -> StoredAnswer | Failure | None:
    """What a call that ended in an exception came to; None where that is no failure of the transport.

    An answer in the body is the answer, though the client could not read all of it; a provider's refusal of the content
    is the model's answer.
    """
    received = _in_body(wire, request) if wire.status < 300 and isinstance(error, Exception) else None
    if received is not None:
        try:
            return answer_of(received, request, latency_ms, None, raw=_raw(wire))
        except Exception as second:
            log.exception("an answer that came cannot be read")
            return unreadable(second, wire, latency_ms)
    failure = failure_of(error, wire)
    return refused(wire, latency_ms) if failure and failure.kind == CONTENT_FILTER else failure


def refused(wire: Wire, latency_ms: float) -> StoredAnswer:
    """A provider's refusal of the content; what is refused with an error's status is not billed."""
    usage = Usage() if wire.status >= 300 else reported_usage(body_of(wire.body), is_empty=True)
    return stored_now("", CONTENT_FILTER, usage, latency_ms, raw=_raw(wire), answered_by=model_in(body_of(wire.body)))


def unreadable(error: Exception, wire: Wire, latency_ms: float) -> StoredAnswer:
    """What came and cannot be read, kept for whoever finds out why; its usage is taken for unknown."""
    return stored_now("", UNREADABLE, None, latency_ms, raw=f"{type(error).__name__}: {error}\n{_raw(wire)}")


def _in_body(wire: Wire, request: Request) -> Received | None:
    """The answer in a body that the client could not read, whatever the request asked for."""
    body = body_of(wire.body)
    if not request.decides:
        return received_of(body)
    likely = probabilities_in(body, request.choices or ())
    if likely is None:
        return None
    text = json.dumps(log_probabilities(likely), ensure_ascii=False)
    return Received(text, "stop", reported_usage(body, is_empty=True), model_in(body))


def _read(response: ModelResponse, wire: Wire, request: Request) -> Received:
    """A provider's response, its tokens as its own body says where that is at hand."""
    text = response.text or next((part.args_as_json_str() for part in response.tool_calls), "")
    body, used = body_of(wire.body), response.usage
    writes_nothing = request.decides or not text
    if not text and (told := received_of(body)):  # in a shape that the client passes over
        text = told.text
    if body is None:
        parts = {"cached_tokens": used.cache_read_tokens, "cache_write_tokens": used.cache_write_tokens}
        counted = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
        usage = usage_of({**counted, "input_tokens_details": parts}, is_empty=writes_nothing)
    else:
        usage = reported_usage(body, is_empty=writes_nothing)
    if response.finish_reason == CONTENT_FILTER and wire.status >= 300:
        usage = Usage()  # a refusal that the client took for an answer itself
    said = str((response.provider_details or {}).get("finish_reason") or "")
    return Received(text, response.finish_reason or stopped(said), usage, model_in(body))


def _raw(wire: Wire) -> str:
    return well_formed(wire.body.decode(errors="replace"))
