"""How each provider is connected to, through pydantic-ai, and whose key goes where: a provider's own to its own hosts,
any other host's from the variable a model names.

It sends nothing: `leastwise.endpoints.inference` does, and counts, stores and retries.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from leastwise.endpoints.failure import HOOKS
from leastwise.endpoints.habits import profile_of
from leastwise.endpoints.request import Provider, Target
from leastwise.errors import BadInput, problems_of, refuse
from leastwise.redaction import hide
from leastwise.use_case import UseCase
from leastwise.use_case.habits import Habits
from leastwise.use_case.model import Model as Declared

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile

NO_TAG = ("\x00", "\x00")  # thinking is cut out here: the provider layer takes an unclosed thought for the answer
NO_KEY = "none"  # what clients are given that refuse to start without one
OWN_URL: dict[Provider, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
KEY_VARIABLES: dict[str, str] = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "generativelanguage.googleapis.com": "GOOGLE_API_KEY",
}
BATCH_TIMEOUT_S = 120.0  # of one upload or look at a job, which the SDK may repeat


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


def url_of(target: Target) -> str:
    """Where the target is asked; never what an SDK would take from the environment instead."""
    return target.base_url or OWN_URL[target.provider]


def is_own_host(target: Target) -> bool:
    """Whether it is asked at its maker's own address."""
    return _variable_of_host(url_of(target)) is not None


def key_of(target: Target) -> str:
    """The key to send. BadInput where a host would need one that nobody has named, or a variable is not set."""
    if target.api_key:
        return target.api_key
    if target.key_variable == NO_KEY:
        return NO_KEY
    variable = target.key_variable or _variable_of_host(url_of(target))
    if variable is None:
        return _key_of_nobody(target)
    key = os.environ.get(variable)
    if not key:
        raise BadInput(f"{target.uri}: no API key; set {variable} in the environment")
    hide(key)
    return key


def check_keys(use_case: UseCase) -> None:
    """BadInput, before anything is spent, for a model whose key nobody has named or whose named variable is not set."""
    _need_keys(model for model in _asked(use_case) if model.base_url or model.key_variable)


def check_own_keys(use_case: UseCase) -> None:
    """BadInput, before anything is spent, where a provider's own variable is not set for any model that may be asked at
    its own host: the second model, the judge or the teacher may be needed only after the first was paid.
    """
    _need_keys(model for model in _asked(use_case) if not (model.base_url or model.key_variable))


def check_judge_key(use_case: UseCase) -> None:
    """BadInput where the key of the model that grades cannot be found."""
    _need_keys(filter(None, [use_case.judge_model]))


def _asked(use_case: UseCase) -> Iterator[Declared]:
    yield from filter(use_case.may_be_sent_to, use_case.models.candidates)
    yield from filter(None, [use_case.judge_model])


def _need_keys(models: Iterable[Declared]) -> None:
    targets = [Target(model.uri, base_url=model.base_url, key_variable=model.key_variable) for model in models]
    refuse(problems_of(partial(key_of, target) for target in targets if not _is_served_here(target)))


def _is_served_here(target: Target) -> bool:
    """Open weights without an address: a server of ours asks for no key."""
    return "://" in target.uri and not (target.base_url or target.key_variable)


def _key_of_nobody(target: Target) -> str:
    """Own weights and servers on this machine mostly need no key; nobody else's is sent to any other host."""
    host = urlsplit(url_of(target)).hostname or ""
    if "://" in target.uri or is_loopback(host):
        return NO_KEY
    raise BadInput(
        f"{target.uri}: which key belongs to {host}? Set key_variable on the model to the environment variable that "
        "holds it, or to none where it needs no key; a provider's own key is sent to the provider's own host only"
    )


def _variable_of_host(url: str) -> str | None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":  # a key is not sent in the clear
        return None
    return next((name for own, name in KEY_VARIABLES.items() if host == own or host.endswith(f".{own}")), None)


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
