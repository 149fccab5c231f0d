"""How each provider wants to be asked and what it answers, through pydantic-ai.

It sends nothing: `leastwise.endpoints.inference` does, and counts, stores and retries.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, cast

from leastwise.endpoints.failure import HOOKS
from leastwise.endpoints.habits import profile_of
from leastwise.endpoints.keys import is_own_host, key_of, url_of
from leastwise.endpoints.received.body import Received, well_formed
from leastwise.endpoints.received.thinking import shows_thinking, without_thinking
from leastwise.endpoints.request import Request, Target
from leastwise.stores.answer_store import StoredAnswer, stored_now
from leastwise.use_case.habits import Habits

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile

NO_TAG = ("\x00", "\x00")  # thinking is cut out here: the provider layer takes an unclosed thought for the answer
ROUNDING = 1e-3  # how far above 0 a log-probability may be
BATCH_TIMEOUT_S = 120.0  # of one upload or look at a job, which the SDK may repeat


class _Token(TypedDict):
    token: str
    logprob: float


@dataclass(frozen=True)
class Connection:
    """A provider's model and the HTTP client it is asked with, which is ours to close."""

    make: Callable[[Habits], Model]
    client: httpx2.AsyncClient
    habits: Habits

    @cached_property
    def model(self) -> Model:
        """The model as it is known to want to be asked."""
        return self.make(self.habits)

    def asked_with(self, habits: Habits) -> Connection:
        """The same over the same client, asked with these habits."""
        return self if habits == self.habits else replace(self, habits=habits)

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self.client.aclose()


def connect(target: Target, timeout_s: float) -> Connection:
    """The provider's model with its SDK's own retries off, for two layers of retries multiply."""
    key = key_of(target)
    if target.provider == "anthropic":
        return _anthropic(target, key, timeout_s)
    return _google(target, key, timeout_s) if target.provider == "google" else _openai(target, key, timeout_s)


def connect_for_batches(target: Target) -> Connection:
    """The provider's model for its batch interface; OpenAI's takes batches of its Responses interface."""
    if target.provider != "openai":
        return connect(target, BATCH_TIMEOUT_S)
    return _openai(target, key_of(target), BATCH_TIMEOUT_S, takes_batches=True)


@asynccontextmanager
async def connected_for_batches(target: Target) -> AsyncIterator[Connection]:
    """As `connect_for_batches`, closed at the end of the block."""
    connection = connect_for_batches(target)
    try:
        yield connection
    finally:
        await connection.aclose()


def answer_of(
    received: Received, request: Request, latency_ms: float, details: dict[str, Any] | None, raw: str = ""
) -> StoredAnswer:
    """What was received as the answer to a request, received now; log-probabilities are among the `details`."""
    confidence = confidence_of(details) if request.wants_confidence else None
    text = well_formed(chosen_label(without_thinking(received.text), request))
    return stored_now(text, received.finish_reason, received.usage, latency_ms, confidence, raw)


def thought(response: ModelResponse) -> bool:
    """Whether the model thought before it answered, as far as it shows."""
    reasoned = response.usage.details.get("reasoning_tokens") or 0
    return bool(response.thinking or reasoned or shows_thinking(response.text or ""))


def chosen_label(text: str, request: Request) -> str:
    """The label out of `{"label": …}`; what does not parse (cut off, say) is the model's answer as it stands."""
    if request.choices is None:
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


def _openai(target: Target, key: str, timeout_s: float, takes_batches: bool = False) -> Connection:
    from openai import AsyncOpenAI, DefaultAioHttpClient
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    # httpx slows down under concurrency; the SDK's aiohttp transport does not (see docs).
    transport = DefaultAioHttpClient(timeout=timeout_s, event_hooks=HOOKS)
    url = url_of(target)
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport)
    _keep_accounts_at_home(client, target)
    kind = OpenAIResponsesModel if takes_batches else OpenAIChatModel

    def make(habits: Habits) -> Model:
        provider = OpenAIProvider(openai_client=client)
        return kind(target.model_name, provider=provider, profile=_adjusted(target, habits))

    return Connection(make, transport, target.habits)


def _keep_accounts_at_home(client: AsyncOpenAI, target: Target) -> None:
    """What the SDK takes from the environment of an OpenAI account is nobody else's business."""
    if not is_own_host(target):
        client.organization = client.project = None


def _adjusted(target: Target, habits: Habits) -> Callable[[ModelProfile], ModelProfile]:
    """The provider layer's profile of a model, with what is known better."""

    def adjust(default: ModelProfile) -> ModelProfile:
        named = profile_of(target.provider, target.model_name, target.base_url or "")
        profile: dict[str, Any] = {**default, **named, "thinking_tags": NO_TAG}
        profile["supports_json_schema_output"] = habits.json_schema is not False
        profile["openai_chat_supports_max_completion_tokens"] = habits.cap_field != "max_tokens"
        profile["openai_supports_strict_tool_definition"] = habits.strict_schema is not False
        return cast("ModelProfile", profile)

    return adjust


def _anthropic(target: Target, key: str, timeout_s: float) -> Connection:
    from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    transport = DefaultAsyncHttpxClient(timeout=timeout_s, event_hooks=HOOKS)
    url = url_of(target)
    client = AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport)
    provider = AnthropicProvider(anthropic_client=client)
    return Connection(lambda _: AnthropicModel(target.model_name, provider=provider), transport, target.habits)


def _google(target: Target, key: str, timeout_s: float) -> Connection:
    """Not run over the wire here: no server in reach speaks Google's interface."""
    import httpx2
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    transport = httpx2.AsyncClient(timeout=timeout_s, event_hooks=HOOKS)
    provider = GoogleProvider(api_key=key, base_url=target.base_url, http_client=transport)
    return Connection(lambda _: GoogleModel(target.model_name, provider=provider), transport, target.habits)
