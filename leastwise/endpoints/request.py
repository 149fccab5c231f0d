"""What is asked of whom: messages, a request, its target, the key its answer is kept under and the most it can cost.

It renders no prompt and sends nothing (see `leastwise.endpoints.inference`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, Self, get_args

from leastwise.endpoints.endpoint import Endpoint
from leastwise.money.token_counts import CHOICE_TOKENS, most_request_tokens
from leastwise.stores.answer_store import answer_key
from leastwise.use_case.price import Usage

Provider = Literal["openai", "anthropic", "google"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One row to answer. `choices` (or a `json_schema`) constrains the output where the provider offers it.

    With `choices` the label itself comes back as text, and `max_tokens` speaks of the label alone: the JSON around it
    is allowed for. `sample` tells repeated samples of the same row apart. `wants_confidence` asks for the probability
    of the answer, which only OpenAI-compatible endpoints tell.
    """

    row_id: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    json_schema: dict[str, object] | None = None
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
    def provider(self) -> Provider:
        """Whose interface it speaks; OpenAI's where the URI names none of the three."""
        prefix = self.uri.partition(":")[0]
        return next((provider for provider in PROVIDERS if provider == prefix), "openai")

    @property
    def model_name(self) -> str:
        """The name to say to the server."""
        prefix, _, rest = self.uri.partition(":")
        return self.model or (rest if prefix in PROVIDERS else self.uri)


def request_key(target: Target, request: Request) -> str:
    """The key an answer is stored under: everything that determines it, and not where the server happens to listen."""
    content = {k: v for k, v in asdict(request).items() if k != "row_id" and (k != "wants_confidence" or v)}
    return answer_key(uri=target.uri, revision=target.revision, provider_cache=target.provider_cache, **content)


def most_usage(request: Request) -> Usage:
    """An upper limit of a call's tokens: a byte-level tokenizer never makes more tokens than there are UTF-8 bytes."""
    constraint = json.dumps([request.json_schema, request.choices], ensure_ascii=False)
    input_tokens = most_request_tokens((message.content for message in request.messages), constraint)
    return Usage(input_tokens=input_tokens, output_tokens=request.most_output_tokens)


def usd_worst(request: Request, price: Callable[[Usage], float]) -> float:
    """The most a call can cost: every token at the dearer of the plain and the cache-writing rate."""
    most = most_usage(request)
    return max(price(most), price(Usage(most.input_tokens, 0, most.input_tokens, most.output_tokens)))
