"""How a model wants to be asked, as far as somebody says so: what it takes, what it refuses, how much it thinks.

What nobody says is known from the provider layer or found out from refusals (see `leastwise.endpoints.habits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator

from leastwise.part import Part
from leastwise.redaction import is_secret_name

Effort = Literal["none", "low", "medium", "high"]
Reasoning = Effort | Annotated[int, Field(ge=64, le=200_000)]
REASONING_TOKENS: dict[Effort, int] = {"none": 0, "low": 1024, "medium": 4096, "high": 16384}
EXPECTED_SHARE = 0.25  # of a budget: thinking is mostly far shorter than what it may take
OURS = frozenset(
    {"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "temperature", "response_format"}
)


class Habits(Part):
    """What a model takes; a field left empty is known from its name, or found out by the first request to it."""

    cap_field: Literal["max_completion_tokens", "max_tokens"] | None = Field(
        None, description="Name of the field that caps output tokens."
    )
    system_role: bool | None = Field(
        None, description="false: it takes no system message; that text then goes into the first user turn."
    )
    temperature: bool | None = Field(None, description="false: it takes no temperature and samples as it likes.")
    json_schema: bool | None = Field(
        None, description="false: it cannot be held to a JSON schema; constrained tries leave it out."
    )
    strict_schema: bool | None = Field(
        None,
        description="true: schemas are rewritten to OpenAI's strict form (everything required); false: sent as they "
        "are; empty: strict only where the schema is so already.",
    )
    logprobs: bool | None = Field(None, description="false: it tells no log-probabilities.")
    cache_key: bool | None = Field(
        None, description="true: it takes a prompt cache key (Anthropic: cache_control); empty: its maker's host only."
    )
    reasoning_effort: bool | None = Field(
        None, description="false: it takes no effort; its `reasoning` is a budget of tokens alone."
    )
    extra_body: dict[str, JsonValue] = Field(
        {}, description="Fields added to every request, such as {chat_template_kwargs: {enable_thinking: false}}."
    )

    @field_validator("extra_body")
    @classmethod
    def _leaves_ours_alone(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OURS & set(body)):
            raise ValueError(f"{', '.join(taken)}: is set by Leastwise (money and verdicts rest on it); remove it")
        if secret := sorted(name for name in body if is_secret_name(name) and name != "prompt_cache_key"):
            raise ValueError(
                f"{', '.join(secret)}: use cases are logged, so no key may stand in one; put it into an environment "
                "variable and name that in key_variable"
            )
        return body

    def over(self, other: Habits) -> Self:
        """These, and what they leave empty as `other` has it."""
        said = {name: value for name, value in self if value not in (None, {})}
        return self.model_copy(update=dict(other) | said)

    @property
    def determining(self) -> Mapping[str, object]:
        """What of it changes the words a model is given and so belongs to the key of its answers."""
        changes = {"system_role": self.system_role is not False, "strict_schema": self.strict_schema}
        defaults: dict[str, object] = {"system_role": True, "strict_schema": None}
        found = {name: value for name, value in changes.items() if value != defaults[name]}
        return found | ({"extra_body": self.extra_body} if self.extra_body else {})


NO_HABITS = Habits()


def reasoning_tokens(reasoning: Reasoning | None) -> int:
    """The budget of output tokens for thinking, which comes on top of the answer's own cap."""
    if reasoning is None:
        return 0
    return reasoning if isinstance(reasoning, int) else REASONING_TOKENS[reasoning]


def effort_within(reasoning: Reasoning) -> Effort:
    """The effort to ask for where a model takes no number of tokens: the highest that the budget allows, at least
    low.
    """
    if isinstance(reasoning, str):
        return reasoning
    allowed: list[Effort] = [each for each, tokens in REASONING_TOKENS.items() if 0 < tokens <= reasoning]
    return allowed[-1] if allowed else "low"
