"""The provider layer's decision models: OpenAI's and Google's over their own clients, and System One's over any host
that speaks it, our own llama.cpp too.

It sends nothing and finds no key: address and key are handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.endpoints.clients.openai_like import inferred
from leastwise.endpoints.failure import HOOKS

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model
    from pydantic_ai.providers.google import GoogleProvider


def openai_decider(name: str, client: AsyncOpenAI) -> Model:
    """A GPT model that decides, over OpenAI's client."""
    from pydantic_ai.providers.openai import OpenAIProvider

    return inferred("openai-decisions", name, OpenAIProvider(openai_client=client))


def google_decider(name: str, over: GoogleProvider) -> Model:
    """A Gemini model that decides, over Google's client."""
    return inferred("google-decisions", name, over)


def system_one_transport(timeout_s: float) -> httpx2.AsyncClient:
    """The transport of a System One host, which is ours to close."""
    import httpx2

    return httpx2.AsyncClient(timeout=timeout_s, event_hooks=HOOKS)


def system_one_decider(name: str, url: str, key: str, transport: httpx2.AsyncClient) -> Model:
    """A model behind `POST /v1/systemone` of this address."""
    from pydantic_ai.providers.system_one import SystemOneProvider

    return inferred("system-one", name, SystemOneProvider(base_url=url, api_key=key, http_client=transport))
