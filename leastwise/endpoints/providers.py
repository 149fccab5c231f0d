"""How each provider wants to be asked and what it answers, through pydantic-ai.

It sends nothing: `leastwise.endpoints.inference` does, and counts, stores and retries.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from leastwise.endpoints.failure import HOOKS
from leastwise.endpoints.received import Received, well_formed
from leastwise.endpoints.request import Message, Provider, Request, Target
from leastwise.errors import BadInput
from leastwise.stores.answer_store import StoredAnswer, answer_key, stored_now

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

KEY_VARIABLES: dict[Provider, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
}
ROUNDING = 1e-3  # how far above 0 a log-probability may be
BATCH_TIMEOUT_S = 120.0  # of one upload or look at a job, which the SDK may repeat


class _Token(TypedDict):
    token: str
    logprob: float


@dataclass(frozen=True)
class Connection:
    """A provider's model and the HTTP client it is asked with, which is ours to close."""

    model: Model
    client: httpx2.AsyncClient

    @property
    def offers_constraints(self) -> bool:
        """Whether the model can be held to a JSON schema."""
        return bool(self.model.profile.get("supports_json_schema_output", False))

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self.client.aclose()


def connect(target: Target, timeout_s: float) -> Connection:
    """The provider's model with its SDK's own retries off, for two layers of retries multiply."""
    key = _key_of(target)
    if target.provider == "anthropic":
        return _anthropic(target, key, timeout_s)
    return _google(target, key, timeout_s) if target.provider == "google" else _openai(target, key, timeout_s)


def connect_for_batches(target: Target) -> Connection:
    """The provider's model for its batch interface; OpenAI's takes batches of its Responses interface."""
    if target.provider != "openai":
        return connect(target, BATCH_TIMEOUT_S)
    return _openai(target, _key_of(target), BATCH_TIMEOUT_S, takes_batches=True)


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
    text = well_formed(chosen_label(received.text, request))
    return stored_now(text, received.finish_reason, received.usage, latency_ms, confidence, raw)


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


def parameters_of(request: Request) -> ModelRequestParameters:
    """What holds the output to the request's schema or choices, if it has any."""
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    schema = request.json_schema
    if request.choices is not None:
        label = {"type": "string", "enum": list(request.choices)}
        schema = {
            "type": "object",
            "properties": {"label": label},
            "required": ["label"],
            "additionalProperties": False,
        }
    if schema is None:
        return ModelRequestParameters()
    output = OutputObjectDefinition(json_schema=schema, name="answer", strict=True)
    return ModelRequestParameters(output_mode="native", output_object=output, allow_text_output=True)


def settings_of(target: Target, request: Request, timeout_s: float | None) -> ModelSettings:
    """Sampling, limits and the provider's own prompt cache; without `timeout_s` a request has no time of its own."""
    if target.provider == "openai":
        settings = _openai_settings(target, request)
    elif target.provider == "anthropic":
        settings = _anthropic_settings(target)
    else:
        settings = {}
    settings["max_tokens"], settings["temperature"] = request.most_output_tokens, request.temperature
    if timeout_s is not None:
        settings["request_timeout"] = timeout_s
    return settings


def _openai_settings(target: Target, request: Request) -> ModelSettings:
    from pydantic_ai.models.openai import OpenAIChatModelSettings

    settings = OpenAIChatModelSettings()
    if request.wants_confidence:
        settings["openai_logprobs"] = True
    if target.provider_cache:
        system = [m.content for m in request.messages if m.role == "system"]
        settings["openai_prompt_cache_key"] = answer_key(uri=target.uri, system=system)[:32]
    return settings


def _anthropic_settings(target: Target) -> ModelSettings:
    from pydantic_ai.models.anthropic import AnthropicModelSettings

    if not target.provider_cache:
        return AnthropicModelSettings()
    return AnthropicModelSettings(anthropic_cache_instructions=True, anthropic_cache_messages=True)


def provider_messages(messages: Sequence[Message]) -> list[ModelMessage]:
    """A conversation as pydantic-ai writes it: what is said between two answers is one request."""
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    made: list[ModelMessage] = []
    for message in messages:
        if message.role == "assistant":
            made.append(ModelResponse(parts=[TextPart(message.content)]))
            continue
        part = (SystemPromptPart if message.role == "system" else UserPromptPart)(message.content)
        last = made[-1] if made else None
        if isinstance(last, ModelRequest):
            made[-1] = ModelRequest(parts=[*last.parts, part])
        else:
            made.append(ModelRequest(parts=[part]))
    return made


def _key_of(target: Target) -> str:
    variable = KEY_VARIABLES[target.provider]
    key = target.api_key or os.environ.get(variable)
    if not key:
        raise BadInput(f"{target.uri}: no API key; set {variable} in the environment")
    return key


def _openai(target: Target, key: str, timeout_s: float, takes_batches: bool = False) -> Connection:
    from openai import AsyncOpenAI, DefaultAioHttpClient
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    # httpx slows down under concurrency; the SDK's aiohttp transport does not (see docs).
    transport = DefaultAioHttpClient(timeout=timeout_s, event_hooks=HOOKS)
    client = AsyncOpenAI(base_url=target.base_url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport)
    kind = OpenAIResponsesModel if takes_batches else OpenAIChatModel
    return Connection(kind(target.model_name, provider=OpenAIProvider(openai_client=client)), transport)


def _anthropic(target: Target, key: str, timeout_s: float) -> Connection:
    from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    transport = DefaultAsyncHttpxClient(timeout=timeout_s, event_hooks=HOOKS)
    client = AsyncAnthropic(
        base_url=target.base_url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport
    )
    return Connection(AnthropicModel(target.model_name, provider=AnthropicProvider(anthropic_client=client)), transport)


def _google(target: Target, key: str, timeout_s: float) -> Connection:
    """Not run over the wire here: no server in reach speaks Google's interface."""
    import httpx2
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    transport = httpx2.AsyncClient(timeout=timeout_s, event_hooks=HOOKS)
    provider = GoogleProvider(api_key=key, base_url=target.base_url, http_client=transport)
    return Connection(GoogleModel(target.model_name, provider=provider), transport)
