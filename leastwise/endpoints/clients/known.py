"""Where each provider answers and which environment variable holds the key that belongs to a host, as data.

It reads no variable.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from leastwise.use_case.hosts import provider_of

OWN_URL: dict[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
    "openai-decisions": "https://api.openai.com/v1",
    "google-decisions": "https://generativelanguage.googleapis.com",
    "openrouter": "https://openrouter.ai/api/v1",
    "together": "https://api.together.xyz/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "deepseek": "https://api.deepseek.com",
}
KEY_VARIABLES: dict[str, str] = {  # by whose host it is; Bedrock's credentials are AWS's own chain
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "together": "TOGETHER_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
}
MAKERS = ("openai", "anthropic", "google")  # whose hosts serve their own models, with the habits that are known of them


def owner_of(url: str) -> str | None:
    """Whose host this is, as far as a key may be sent there: by https only, for a key is not sent in the clear."""
    parts = urlsplit(url)
    return provider_of(parts.hostname or "") if parts.scheme == "https" and parts.hostname else None


def variable_of(url: str) -> str | None:
    """The variable with the key that belongs to this address; None where nobody's does."""
    return KEY_VARIABLES.get(owner_of(url) or "")
