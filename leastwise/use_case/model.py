"""The models a use case may draw on: which, where each answers, and at what price. It reaches none of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.errors import BadInput
from leastwise.part import Part, written_but_for
from leastwise.redaction import holds_credentials
from leastwise.use_case.habits import EXPECTED_SHARE, NO_HABITS, Habits, Reasoning, reasoning_tokens
from leastwise.use_case.hosts import (
    DECIDING,
    DECISION_HOSTS,
    HOSTED,
    PROVIDERS_HOSTS,
    host_of,
    provider_of,
    same_spelling,
)
from leastwise.use_case.price import Price

Venue = Literal["api", "managed", "self_host"]
MODEL_URI = re.compile(rf"^(hf|s3|file|package)://\S.*|^({'|'.join(HOSTED)}):\S+$")
_BY_THEIR_OWN_PACKAGE = re.compile(r"^(groq|mistral):(\S+)$")
_THEIR_URLS = {"groq": "https://api.groq.com/openai/v1", "mistral": "https://api.mistral.ai/v1"}
_PROVIDERS_OWN = {"openai": "gpt", "anthropic": "claude", "google": "gemini"}
_NO_FAMILY = frozenset({"llm", "meta", "gt", "the"})
_FAMILY = re.compile(r"claude|gpt|gemini|gemma|llama|mi[sx]tral|qwen|deepseek|nova|grok|command|phi|kimi|glm")


class Model(Part):
    """One model a stage may use."""

    uri: str = Field(
        description="hf://…, s3://…, file://…, package://…, or a provider and its name for it: openai:…, anthropic:…, "
        "google:…, azure:…, bedrock:…, openrouter:…, together:…, fireworks:…, deepseek:…, ollama:…, vllm:…; a decision "
        "model, which says how likely each label is and writes nothing: openai-decisions:…, google-decisions:…, "
        "system-one:… with base_url"
    )
    venue: Venue = Field("api", description="Where it answers.")
    host: str | None = Field(
        None,
        description="Host name of the endpoint; empty: that of base_url, or the provider's. For open weights "
        "that are served here while they are measured: where they will answer in production.",
    )
    base_url: str | None = Field(
        None,
        description="OpenAI-compatible endpoint of that host; empty: the provider's own, "
        "or for open weights a server that is started here.",
    )
    context_tokens: int = Field(2048, ge=128, description="Longest prompt plus answer the model takes.")
    price: Price | None = Field(None, description="Dollars per million tokens; empty: from the price book.")
    family: str | None = Field(
        None,
        max_length=60,
        description="Whose model it is at heart (llama, qwen, gpt), since a "
        "judge favours its own; empty: told from the name.",
    )
    training_on_output: bool | None = Field(
        None,
        description="Whether its licence allows training on its answers. False: it never teaches. Empty: nobody has "
        "read it, and where distill may be reached that is asked for first.",
    )
    revision: str = Field(
        "",
        max_length=100,
        description="Which version a host serves under this name; change it when that does, and nothing that was "
        "answered before counts for it.",
    )
    served_name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The name the endpoint knows it by; empty: what follows the provider, or org/name of hf://org/name.",
    )
    key_variable: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the key of base_url's host; `none`: it needs no key. Empty: the "
        "provider's own variable, which is sent to the provider's own host only.",
    )
    reasoning: Reasoning | None = Field(
        None,
        description="How much it thinks before it answers: none, low, medium, high, or a number of tokens. The budget "
        "(1,024, 4,096 or 16,384 tokens) is added to the cap of the answer and to its cost. Empty: as the model does "
        "by itself.",
    )
    habits: Habits = Field(NO_HABITS, description="What it takes and refuses, where that is not found out rightly.")

    @model_validator(mode="after")
    def _uri_is_readable(self) -> Self:
        check_model_uri(self.uri)
        if self.base_url and holds_credentials(self.base_url):
            raise ValueError(
                "base_url: carries a user, a password or a key; take it out, put the key into an environment variable "
                "and name that variable in key_variable"
            )
        return self

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Use cases from before these fields keep their keys."""
        defaults: dict[str, object] = {"revision": "", "served_name": None, "key_variable": None, "reasoning": None}
        return written_but_for(write(self), habits=NO_HABITS.model_dump(mode="json"), **defaults)

    @property
    def reasoning_tokens(self) -> int:
        """Output tokens it may think for, beside its answer."""
        return reasoning_tokens(self.reasoning)

    @property
    def expected_reasoning_tokens(self) -> int:
        """About how many of them it uses."""
        return round(self.reasoning_tokens * EXPECTED_SHARE)

    def most_output_tokens(self, answer_tokens: int) -> int:
        """The most output tokens that are billed for an answer of so many: thinking comes on top."""
        return answer_tokens + self.reasoning_tokens

    @property
    def name_served(self) -> str | None:
        """The name to say to the endpoint, where it is not what follows the provider."""
        if self.served_name or not self.base_url:
            return self.served_name
        return self.uri.removeprefix("hf://").partition("@")[0] if self.uri.startswith("hf://") else None

    @model_validator(mode="after")
    def _goes_where_it_says(self) -> Self:
        """What is declared of an endpoint is what its address says: residency is judged by where requests go."""
        goes_to = self._asked_host()
        if goes_to is None:
            return self
        if self.host is not None and same_spelling(self.host) != goes_to:
            where = "base_url" if self.base_url else f"the provider of {self.uri}"
            raise ValueError(
                f"host: {self.host} is declared, and requests go to {goes_to} ({where}); correct the wrong one, or "
                "give the base_url of that host"
            )
        if self.venue == "self_host" and provider_of(goes_to):
            raise ValueError(f"venue: self_host is declared, and requests go to {goes_to}; write venue: api")
        return self

    @property
    def request_host(self) -> str | None:
        """The host its requests go to, as clients read it; for open weights that are served here the declared one,
        None where there is none.
        """
        return self._asked_host() or (same_spelling(self.host) if self.host else None)

    def _asked_host(self) -> str | None:
        if self.base_url:
            return host_of(self.base_url)
        return None if self.is_open else (PROVIDERS_HOSTS | DECISION_HOSTS).get(self.uri.partition(":")[0])

    @property
    def is_served_here(self) -> bool:
        """Whether a server of our own answers while it is measured."""
        return self.is_open and not self.base_url

    @property
    def is_open(self) -> bool:
        """Whether the weights themselves are at hand, so that they can be trained and served."""
        return "://" in self.uri

    @property
    def decides(self) -> bool:
        """Whether it is a decision model: it says how likely each label is, and writes nothing."""
        return self.uri.partition(":")[0] in DECIDING

    @property
    def may_teach(self) -> bool:
        """Whether a student may be trained on its answers."""
        return self.is_open or self.training_on_output is True

    @property
    def kin(self) -> str:
        """`family`, or what the name says: the provider's own, or the first word of an open model's name."""
        if self.family:
            return self.family.casefold()
        provider, _, name = self.uri.partition(":")
        if not self.is_open:
            told = _FAMILY.search(name.casefold())
            return _PROVIDERS_OWN.get(provider) or (told[0] if told else name.casefold())
        words = re.findall(r"[a-z]+", self.uri.rstrip("/").rpartition("/")[2].casefold())
        return next((word for word in words if word not in _NO_FAMILY), self.uri)


class Models(Part):
    """The models a use case may draw on."""

    candidates: tuple[Model, ...] = Field(min_length=1, description="Models to prompt, tried cheapest first.")
    base: Model | None = Field(None, description="Open weights to fine-tune; needed by fine_tune and pretrain.")
    embedder: str | None = Field(None, description="Embedding model for retrieval, the reference and drift.")
    student: str | None = Field(None, description="Encoder from which distillation makes its student.")

    @model_validator(mode="after")
    def _uris_are_readable(self) -> Self:
        for uri in filter(None, (self.embedder, self.student)):
            check_model_uri(uri)
        if self.base and not self.base.is_open:
            raise ValueError(f"base: {self.base.uri} is not open weights; name hf://, s3://, file:// or package://")
        return self


def check_model_uri(uri: str) -> None:
    """Raise ValueError for a model URI of an unknown scheme."""
    if other := _BY_THEIR_OWN_PACKAGE.match(uri):
        raise ValueError(
            f"uri: {uri!r} needs a package that is not installed; {other[1]} speaks OpenAI's interface too: write "
            f"openai:{other[2]} with base_url: {_THEIR_URLS[other[1]]} and key_variable: {other[1].upper()}_API_KEY"
        )
    if not MODEL_URI.match(uri):
        raise ValueError(
            f"uri: {uri!r} names no model; write hf://org/name, s3://bucket/path, file:///path, package://name, "
            f"or a provider and its name for it ({', '.join(f'{each}:name' for each in HOSTED)})"
        )


def each_is_one_model(candidates: Sequence[Model], listed: Sequence[Model]) -> None:
    """BadInput where a URI stands for two: a model is found by it, and the first would be taken for both, its address,
    price and reasoning.
    """
    for at, model in enumerate(candidates):
        first = next(each for each in candidates if each.uri == model.uri)
        if first is not candidates[at]:
            differing = [name for name in Model.model_fields if getattr(first, name) != getattr(model, name)]
            raise BadInput(
                f"models.candidates: {model.uri} is listed twice"
                + (f", with another {' and '.join(differing)}" if differing else "")
                + "; list it once, or give one another uri and, in served_name, the name its endpoint knows it by"
            )
    known: dict[str, Model] = {}
    for model in listed:
        first = known.setdefault(model.uri, model)
        if (first.base_url, first.revision) != (model.base_url, model.revision):
            raise BadInput(
                f"models: {model.uri} is named with two addresses or revisions ({first.base_url or 'none'} "
                f"{first.revision}, {model.base_url or 'none'} {model.revision}); give it one, or the other another uri"
            )
