"""OpenAI's client for OpenAI and for whoever speaks its chat interface, and the provider layer's model over it.

It sends nothing and finds no key: address and key are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit, urlunsplit

from leastwise.endpoints.clients.known import owner_of
from leastwise.endpoints.failure import HOOKS

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.providers import Provider

    Adjust = Callable[[ModelProfile], ModelProfile]

CHAT, RESPONSES = "openai-chat", "openai-responses"  # what the provider layer calls OpenAI's two interfaces


def openai_client(provider: str, url: str, key: str, timeout_s: float) -> AsyncOpenAI:
    """A client of this address, its retries off; its transport is ours to close."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    # httpx slows down under concurrency; the SDK's aiohttp transport does not (see docs).
    transport = DefaultAioHttpClient(timeout=timeout_s, event_hooks=HOOKS)
    how: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": timeout_s, "http_client": transport}
    client = _azure_client(url, how) if provider == "azure" else AsyncOpenAI(base_url=url, **how)
    if owner_of(url) != "openai":  # what the SDK takes from the environment of an OpenAI account is nobody else's
        client.organization = client.project = None
    return client


def _azure_client(url: str, how: dict[str, Any]) -> AsyncOpenAI:
    """Azure's address at a version of its interface (`?api-version=`), which has the deployment in its path and takes
    the key in a header of its own; its version-less interface is OpenAI's as it is.
    """
    from openai import AsyncAzureOpenAI, AsyncOpenAI

    parts = urlsplit(url)
    version = parse_qs(parts.query).get("api-version", [""])[0]
    whole = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    if version:
        root = whole.removesuffix("/openai")
        client = AsyncAzureOpenAI(azure_endpoint=root, api_version=version, **how)
        client._azure_ad_token = None  # AZURE_OPENAI_AD_TOKEN of the environment goes before the key, to any host
        return client
    is_whole = whole.endswith(("/v1", "/models"))
    return AsyncOpenAI(base_url=whole if is_whole else f"{whole.removesuffix('/openai')}/openai/v1", **how)


def inferred(provider: str, name: str, over: object) -> Model:
    """The model that the provider layer infers of a provider and a name, over this provider of its own."""
    from pydantic_ai.models import infer_model

    return infer_model(f"{provider}:{name}", provider_factory=lambda _: cast("Provider[Any]", over))


def openai_model(provider: str, name: str, client: AsyncOpenAI, adjust: Adjust, is_responses: bool) -> Model:
    """The model as the provider layer asks it, with what is known better of it."""
    from pydantic_ai.providers import infer_provider_class

    own: Any = infer_provider_class(provider)
    over = own(openai_client=client)
    meant = (RESPONSES if is_responses else CHAT) if provider == "openai" else provider
    kind: Any = type(inferred(meant, name, over))
    return cast("Model", kind(name, provider=over, profile=adjust))
