"""What is asked of which endpoint, and how each provider wants to be asked, through pydantic-ai.

It sends nothing: `leastwise.endpoints.inference` does, and counts, stores and retries.
"""

import inspect
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from leastwise.endpoints.endpoint import Endpoint
from leastwise.errors import BadInput
from leastwise.stores.answer_store import answer_key

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings


KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY"}
CHOICE_TOKENS = 32  # `{"label": ""}` around the label: llama.cpp's grammar allows line breaks and spaces in it


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One row to answer. `choices` (or a `json_schema`) constrains the output where the provider offers it.

    With `choices` the label itself comes back as text, and `max_tokens` speaks of the label alone: the JSON around it
    is allowed for. `sample` tells repeated samples of the same row apart. `wants_confidence` asks for the probability of
    the answer, which only OpenAI-compatible endpoints tell.
    """

    row_id: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    json_schema: dict[str, Any] | None = None
    choices: tuple[str, ...] | None = None
    sample: int = 0
    wants_confidence: bool = False

    @property
    def most_output_tokens(self) -> int:
        """The cap on output tokens that is sent."""
        return self.max_tokens + (CHOICE_TOKENS if self.choices else 0)


@dataclass(frozen=True)
class Target:
    """Who is asked: `openai:NAME`, `anthropic:NAME`, `google:NAME`, or any other URI served OpenAI-compatibly.

    `model` is the name to say to the server (default: what follows `provider:`); `revision` must change whenever the
    weights, the adapter or the quantization behind `uri` change, for answers are kept under it. `api_key` defaults to
    the provider's environment variable.
    """

    uri: str
    revision: str = ""
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False, compare=False)
    provider_cache: bool = False

    @classmethod
    def served(cls, endpoint: Endpoint, uri: str, revision: str) -> Self:
        """A model that one of our own servers (or any OpenAI-compatible one) answers for."""
        return cls(uri, revision, endpoint.model, endpoint.base_url, endpoint.api_key or "none")

    @property
    def provider(self) -> str:
        prefix = self.uri.partition(":")[0]
        return prefix if prefix in KEY_VARIABLES else "openai"

    @property
    def model_name(self) -> str:
        prefix, _, rest = self.uri.partition(":")
        return self.model or (rest if prefix in KEY_VARIABLES else self.uri)


def chosen_label(text: str, request: Request) -> str:
    """The label out of `{"label": …}`; what does not parse (cut off, say) is the model's answer as it stands."""
    if request.choices is None:
        return text
    try:
        return str(json.loads(text)["label"])
    except (ValueError, KeyError, TypeError):
        return text


def confidence_of(details: dict[str, Any] | None) -> float | None:
    """The probability of a whole answer, from the log-probabilities of its tokens; None where they were not told.

    The mark that ends an answer says nothing of its content and is left out where it is told.
    """
    told = [token for token in (details or {}).get("logprobs") or [] if not str(token["token"]).startswith("<|")]
    return min(1.0, math.exp(sum(token["logprob"] for token in told))) if told else None


def parameters_of(request: Request) -> "ModelRequestParameters":
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
    wanted = OutputObjectDefinition(json_schema=schema, name="answer", strict=True)
    return ModelRequestParameters(output_mode="native", output_object=wanted, allow_text_output=True)


def settings_of(target: Target, request: Request, timeout_s: float) -> "ModelSettings":
    settings: dict[str, Any] = {"max_tokens": request.most_output_tokens, "temperature": request.temperature}
    settings["request_timeout"] = timeout_s
    if request.wants_confidence and target.provider == "openai":
        settings["openai_logprobs"] = True
    if target.provider_cache and target.provider == "anthropic":
        settings |= {"anthropic_cache_instructions": True, "anthropic_cache_messages": True}
    if target.provider_cache and target.provider == "openai":
        system = [m.content for m in request.messages if m.role == "system"]
        settings["openai_prompt_cache_key"] = answer_key(uri=target.uri, system=system)[:32]
    return settings  # type: ignore[return-value]


def provider_messages(messages: Sequence[Message]) -> list[Any]:
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    made: list[Any] = []
    for message in messages:
        if message.role == "assistant":
            made.append(ModelResponse(parts=[TextPart(message.content)]))
            continue
        part = (SystemPromptPart if message.role == "system" else UserPromptPart)(message.content)
        if made and isinstance(made[-1], ModelRequest):
            made[-1] = ModelRequest(parts=[*made[-1].parts, part])
        else:
            made.append(ModelRequest(parts=[part]))
    return made


def model_of(target: Target, timeout_s: float) -> "Model":
    """The provider's model with its SDK's own retries off, for two layers of retries multiply."""
    key = _key_of(target)
    return {"openai": _openai_model, "anthropic": _anthropic_model, "google": _google_model}[target.provider](
        target, key, timeout_s
    )


def _key_of(target: Target) -> str:
    key = target.api_key or os.environ.get(KEY_VARIABLES[target.provider])
    if not key:
        raise BadInput(f"{target.uri}: no API key; set {KEY_VARIABLES[target.provider]} in the environment")
    return key


def batch_model_of(target: Target) -> "Model":
    """The provider's model for its batch interface; OpenAI's takes batches of its Responses interface."""
    timeout_s = 120.0  # of one upload or look at a job, which the SDK may repeat
    if target.provider != "openai":
        return model_of(target, timeout_s)
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    key = _key_of(target)
    return OpenAIResponsesModel(
        target.model_name, provider=OpenAIProvider(openai_client=_openai_client(target, key, timeout_s))
    )


async def close(model: "Model") -> None:
    """Close a model's HTTP connections."""
    client = getattr(model, "client", None)
    closing = getattr(client, "close", None) or getattr(client, "aclose", None)
    if closing and inspect.isawaitable(closed := closing()):
        await closed


@asynccontextmanager
async def closed_after(model: "Model") -> AsyncIterator[None]:
    """Close a model's HTTP connections at the end of the block."""
    try:
        yield
    finally:
        await close(model)


def _openai_model(target: Target, key: str, timeout_s: float) -> "Model":
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(
        target.model_name, provider=OpenAIProvider(openai_client=_openai_client(target, key, timeout_s))
    )


def _openai_client(target: Target, key: str, timeout_s: float) -> "AsyncOpenAI":
    from openai import AsyncOpenAI, DefaultAioHttpClient

    # httpx slows down under concurrency; the SDK's aiohttp transport does not (see docs).
    transport = DefaultAioHttpClient(timeout=timeout_s)
    return AsyncOpenAI(base_url=target.base_url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport)


def _anthropic_model(target: Target, key: str, timeout_s: float) -> "Model":
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=target.base_url, api_key=key, max_retries=0, timeout=timeout_s)
    return AnthropicModel(target.model_name, provider=AnthropicProvider(anthropic_client=client))


def _google_model(target: Target, key: str, timeout_s: float) -> "Model":
    """Not run over the wire here: no server in reach speaks Google's interface."""
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(target.model_name, provider=GoogleProvider(api_key=key, base_url=target.base_url))
