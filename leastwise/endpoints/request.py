"""What is asked of whom: messages, a request, its target, the key its answer is kept under and the most it can cost.

It renders no prompt and sends nothing (see `leastwise.endpoints.inference`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import JsonValue

from leastwise.money.token_counts import OPTION_TOKENS
from leastwise.stores.answer_store import answer_key
from leastwise.use_case.habits import NO_HABITS, Habits, Reasoning
from leastwise.use_case.price import Usage

Dialect = Literal["openai", "anthropic", "google", "bedrock", "openai-decisions", "google-decisions", "system-one"]
Compatible = Literal["azure", "openrouter", "together", "fireworks", "deepseek", "ollama", "vllm"]
Provider = Literal[Dialect, Compatible]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
PROVIDERS: tuple[Provider, ...] = (*DIALECTS, *get_args(Compatible))
CHOICE_TOKENS = 32  # `{"label": ""}` around the label: llama.cpp's grammar allows line breaks and spaces in it
DECISION_TOKENS = 16  # of output that a decision may be billed for: providers count none, or one a question
TEMPLATE_TOKENS = (64, 16)  # a generous allowance for the chat template: per request, per message


@dataclass(frozen=True)
class Endpoint:
    """Where a served model answers. `base_url` ends in `/v1` for a causal model; `pid` is None if it is not ours.
    `body`: fields of each request that say which adapter is meant, where its server is not told by the name.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    pid: int | None = None
    body: Mapping[str, JsonValue] = field(default_factory=dict)


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
    of the answer, which only OpenAI-compatible endpoints tell. `reasoning_tokens` may be thought before the answer.
    `is_completion`: the one message is a plain text to go on with, up to the end of a line. With `first_tokens` (the
    vocabulary's number of the token each of `choices` begins with) the answer is how likely each choice is, as JSON.
    `decides`: so it is too, asked of a decision model, which is given the `choices` as options.
    """

    row_id: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    json_schema: dict[str, object] | None = None
    choices: tuple[str, ...] | None = None
    sample: int = 0
    wants_confidence: bool = False
    reasoning_tokens: int = 0
    is_completion: bool = False
    first_tokens: tuple[int, ...] = ()
    decides: bool = False

    @property
    def most_output_tokens(self) -> int:
        """The cap on output tokens that is sent: the answer's own, what holds it, and what may be thought before."""
        if self.first_tokens:
            return 1
        if self.decides:
            return DECISION_TOKENS
        return self.max_tokens + (CHOICE_TOKENS if self.choices else 0) + self.reasoning_tokens

    @property
    def is_constrained(self) -> bool:
        """Whether the output is held to a schema."""
        return (self.choices is not None or self.json_schema is not None) and not (self.first_tokens or self.decides)


@dataclass(frozen=True)
class Target:
    """Who is asked: `PROVIDER:NAME` (`openai:NAME`, `azure:NAME`), or any other URI served OpenAI-compatibly.

    `model` is the name to say to the server (default: what follows `provider:`); `revision` must change whenever the
    weights, the adapter or the quantization behind `uri` change, for answers are kept under it. `api_key` defaults to
    the provider's environment variable at the provider's own host (see `key_of`). `habits` and `reasoning` are how it
    is asked. `is_own`: a server of ours with these very weights, wherever it listens and whatever it calls them;
    `engine` is what that computes as, where it is not what all of ours did before there were several. `interface`: by
    which it is asked, where that is not its provider's.
    """

    uri: str
    revision: str = ""
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False, compare=False)
    provider_cache: bool = False
    key_variable: str | None = None
    reasoning: Reasoning | None = None
    habits: Habits = NO_HABITS
    is_own: bool = False
    engine: str = ""
    interface: Dialect | None = None

    @classmethod
    def served(cls, endpoint: Endpoint, uri: str, revision: str, engine: str = "") -> Self:
        """A model that one of our own servers answers for."""
        habits = Habits(extra_body=dict(endpoint.body)) if endpoint.body else NO_HABITS
        who = cls(uri, revision, endpoint.model, endpoint.base_url, endpoint.api_key or "none", is_own=True)
        return replace(who, habits=habits, engine=engine)

    @property
    def place(self) -> dict[str, str]:
        """Where it answers and by what name, as far as that says which model it is; of a server of our own what it
        computes as; empty for a provider's own address and name.
        """
        if self.is_own:
            return {"engine": self.engine} if self.engine else {}
        named = {"model": self.model or ""} if self.model and self.model != replace(self, model=None).model_name else {}
        return named | ({"endpoint": _address(self.base_url)} if self.base_url else {})

    @property
    def shown(self) -> str:
        """Who is asked, for people: without what an address may hold of a key."""
        return f"{self.uri} at {_address(self.base_url)}" if self.base_url else self.uri

    @property
    def provider(self) -> Provider:
        """Who is asked; OpenAI where the URI names nobody, for then it speaks that interface."""
        prefix = self.uri.partition(":")[0]
        return next((provider for provider in PROVIDERS if provider == prefix), "openai")

    @property
    def dialect(self) -> Dialect:
        """Whose interface it speaks: OpenAI's chat, where it has none of its own."""
        if self.interface is not None:
            return self.interface
        return next((dialect for dialect in DIALECTS if dialect == self.provider), "openai")

    @property
    def model_name(self) -> str:
        """The name to say to the server."""
        prefix, _, rest = self.uri.partition(":")
        return self.model or (rest if prefix in PROVIDERS else self.uri)


def _address(base_url: str) -> str:
    """An address as it names an endpoint: without user, password, query and the slash at its end."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{port}{parts.path.rstrip('/')}"


def request_key(target: Target, request: Request) -> str:
    """The key an answer is stored under: everything that determines it, the endpoint with it.

    Where a server of our own happens to listen is no part of it, and what was asked before endpoints were part of it at
    our own servers or a provider's own address keeps its key.
    """
    later = (
        "wants_confidence",
        "reasoning_tokens",
        "is_completion",
        "first_tokens",
        "decides",
    )  # fields that older keys do not have
    content = {k: v for k, v in asdict(request).items() if k != "row_id" and (k not in later or v)}
    habits = dict(target.habits.determining) | ({} if target.reasoning is None else {"reasoning": target.reasoning})
    content |= {"habits": habits} if habits else {}
    who = {"uri": target.uri, "revision": target.revision, "provider_cache": target.provider_cache}
    return answer_key(**who, **target.place, **content)


def most_usage(request: Request) -> Usage:
    """An upper limit of a call's tokens: a byte-level tokenizer never makes more tokens than there are UTF-8 bytes."""
    constraint = json.dumps([request.json_schema, request.choices], ensure_ascii=False)
    options = OPTION_TOKENS * len(request.choices or ()) if request.decides else 0
    text_bytes = sum(len(m.content.encode()) for m in request.messages) + len(constraint.encode())
    per_request, per_message = TEMPLATE_TOKENS
    input_tokens = text_bytes + options + per_request + per_message * len(request.messages)
    return Usage(input_tokens=input_tokens, output_tokens=request.most_output_tokens)


def unknown_usage(request: Request, text: str) -> Usage:
    """What an answer is taken to have used where its provider does not say: the most, and more where the text is surely
    longer than the cap on it (about four bytes are a token).
    """
    most = most_usage(request)
    return replace(most, output_tokens=max(most.output_tokens, len(text.encode(errors="replace")) // 4))


def usd_worst(request: Request, price: Callable[[Usage], float]) -> float:
    """The most a call can cost: every token at the dearer of the plain and the cache-writing rate."""
    return usd_at_most(most_usage(request), price)


def usd_at_most(usage: Usage, price: Callable[[Usage], float]) -> float:
    """Dollars of this usage, none of it read from a cache and perhaps all of its input written to one."""
    plain = Usage(usage.input_tokens, 0, 0, usage.output_tokens)
    return max(price(plain), price(replace(plain, cache_write_tokens=usage.input_tokens)))
