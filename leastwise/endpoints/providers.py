"""How each provider is connected to, through pydantic-ai, and whose key goes where: a provider's own to its own hosts,
any other host's from the variable a model names.

It sends nothing: `leastwise.endpoints.inference` does, and counts, stores and retries.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from leastwise.endpoints.clients import bedrock, deciding
from leastwise.endpoints.clients.known import MAKERS, OWN_URL, owner_of, variable_of
from leastwise.endpoints.clients.openai_like import inferred, openai_client, openai_model
from leastwise.endpoints.failure import HOOKS
from leastwise.endpoints.habits import profile_of
from leastwise.endpoints.request import Dialect, Target
from leastwise.errors import BadInput, problems_of, refuse
from leastwise.redaction import hide
from leastwise.use_case import UseCase
from leastwise.use_case.habits import Habits
from leastwise.use_case.model import Model as Declared

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile

NO_TAG = ("\x00", "\x00")  # thinking is cut out here: the provider layer takes an unclosed thought for the answer
NO_KEY = "none"  # what clients are given that refuse to start without one
BATCH_TIMEOUT_S = 120.0  # of one upload or look at a job, which the SDK may repeat


@dataclass(frozen=True)
class Connection:
    """A provider's model, and how to close the HTTP client it is asked with, which is ours."""

    make: Callable[[Habits], Model]
    close: Callable[[], Awaitable[None]]
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
        await self.close()


def connect(target: Target, timeout_s: float) -> Connection:
    """The provider's model with its SDK's own retries off, for two layers of retries multiply."""
    key = key_of(target)
    return _BY_DIALECT[target.dialect](target, key, timeout_s)


def connect_for_batches(target: Target) -> Connection:
    """The provider's model for its batch interface; OpenAI's takes batches of its Responses interface."""
    if target.dialect != "openai":
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
    url = target.base_url or OWN_URL.get(target.provider)
    if url is None:
        raise BadInput(f"{target.uri}: has no address of its own; set base_url on it")
    return url


def is_own_host(target: Target) -> bool:
    """Whether it is asked at the address of OpenAI, Anthropic or Google, whose models' habits are known."""
    return owner_of(url_of(target)) in MAKERS


def key_of(target: Target) -> str:
    """The key to send. BadInput where a host would need one that nobody has named, or a variable is not set."""
    if target.api_key:
        return target.api_key
    if target.key_variable == NO_KEY:
        return NO_KEY
    if target.key_variable is None and target.provider == owner_of(url_of(target)) == "bedrock":
        return bedrock.credential_of(target.uri)
    variable = target.key_variable or variable_of(url_of(target))
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
    if (managed := use_case.training.managed) and use_case.may_be_sent_to(managed.base):
        yield managed.base


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


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _openai(target: Target, key: str, timeout_s: float, takes_batches: bool = False) -> Connection:
    provider, name = target.provider, target.model_name
    client = openai_client(provider, url_of(target), key, timeout_s)

    def make(habits: Habits) -> Model:
        return openai_model(provider, name, client, _adjusted(target, habits), takes_batches)

    return Connection(make, client.close, target.habits)


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
    from pydantic_ai.providers.anthropic import AnthropicProvider

    transport = DefaultAsyncHttpxClient(timeout=timeout_s, event_hooks=HOOKS)
    url = url_of(target)
    client = AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=timeout_s, http_client=transport)
    model = partial(inferred, "anthropic", target.model_name, AnthropicProvider(anthropic_client=client))
    return Connection(lambda _: model(), transport.aclose, target.habits)


def _google(target: Target, key: str, timeout_s: float) -> Connection:
    import httpx2
    from pydantic_ai.providers.google import GoogleProvider

    transport = httpx2.AsyncClient(timeout=timeout_s, event_hooks=HOOKS)
    over = GoogleProvider(api_key=key, base_url=target.base_url, http_client=transport)
    kind = partial(inferred, "google") if target.dialect == "google" else deciding.google_decider
    return Connection(lambda _: kind(target.model_name, over), transport.aclose, target.habits)


def _bedrock(target: Target, key: str, timeout_s: float) -> Connection:
    client = bedrock.bedrock_client(url_of(target), key, timeout_s)

    async def close() -> None:
        client.close()

    return Connection(lambda _: bedrock.bedrock_model(target.model_name, client), close, target.habits)


def _openai_decisions(target: Target, key: str, timeout_s: float) -> Connection:
    client = openai_client("openai", url_of(target), key, timeout_s)
    return Connection(lambda _: deciding.openai_decider(target.model_name, client), client.close, target.habits)


def _system_one(target: Target, key: str, timeout_s: float) -> Connection:
    transport = deciding.system_one_transport(timeout_s)
    model = partial(deciding.system_one_decider, target.model_name, url_of(target), key, transport)
    return Connection(lambda _: model(), transport.aclose, target.habits)


_BY_DIALECT: dict[Dialect, Callable[[Target, str, float], Connection]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
    "bedrock": _bedrock,
    "openai-decisions": _openai_decisions,
    "google-decisions": _google,
    "system-one": _system_one,
}
