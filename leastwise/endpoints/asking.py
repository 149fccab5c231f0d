"""A request as its provider wants it written: messages, settings and schema, by the habits of whoever is asked.

It connects to nobody and reads no answer (see `leastwise.endpoints.providers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leastwise.endpoints.clients.known import owner_of
from leastwise.endpoints.habits import profile_of
from leastwise.endpoints.providers import url_of
from leastwise.endpoints.request import Message, Request, Target
from leastwise.stores.answer_store import answer_key
from leastwise.use_case.habits import Habits, Reasoning, effort_within, reasoning_tokens

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.anthropic import AnthropicModelSettings
    from pydantic_ai.settings import ModelSettings, ThinkingLevel

LEAST_ANTHROPIC_BUDGET = 1024


def parameters_of(request: Request, target: Target | None = None) -> ModelRequestParameters:
    """What holds the output to the request's schema or choices, if it has any."""
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    schema = request.json_schema
    if request.choices is not None:
        label = {"type": "string", "enum": list(request.choices)}
        schema = {
            "type": "object",
            "properties": {"label": label},
            "required": ["label"],
            "additionalProperties": False,
        }
    if schema is None:
        return ModelRequestParameters()
    # Strict only where the schema is so already (None): rewritten, optional fields would have to be made up.
    strict = True if target is None or target.dialect != "openai" else target.habits.strict_schema
    output = OutputObjectDefinition(json_schema=schema, name="answer", strict=strict)
    return ModelRequestParameters(output_mode="native", output_object=output, allow_text_output=True)


def settings_of(target: Target, request: Request, timeout_s: float | None) -> ModelSettings:
    """Sampling, limits and the provider's own prompt cache; without `timeout_s` a request has no time of its own."""
    habits = target.habits
    if target.dialect == "openai":
        settings = _openai_settings(target, request)
    elif target.dialect == "anthropic":
        settings = _anthropic_settings(target)
    elif target.dialect == "bedrock":
        settings = _bedrock_settings(target)
    else:
        settings = _google_settings(target)
    settings["max_tokens"] = request.most_output_tokens
    if habits.temperature is not False:
        settings["temperature"] = request.temperature
    if habits.extra_body and target.dialect != "bedrock":
        settings["extra_body"] = dict(habits.extra_body)
    if timeout_s is not None:
        settings["request_timeout"] = timeout_s
    return settings


def _openai_settings(target: Target, request: Request) -> ModelSettings:
    from pydantic_ai.models.openai import OpenAIChatModelSettings

    settings, habits = OpenAIChatModelSettings(), target.habits
    if request.wants_confidence and habits.logprobs is not False:
        settings["openai_logprobs"] = True
    if target.provider_cache and _takes_cache_key(target):
        system = [m.content for m in request.messages if m.role == "system"]
        settings["openai_prompt_cache_key"] = answer_key(uri=target.uri, system=system)[:32]
    if isinstance(target.reasoning, str) and habits.reasoning_effort is not False:
        if _profile_knows_thinking(target):
            settings["thinking"] = False if target.reasoning == "none" else target.reasoning
        else:  # the provider layer would drop it without a word
            settings["openai_reasoning_effort"] = target.reasoning
    return settings


def _takes_cache_key(target: Target) -> bool:
    """Other hosts than OpenAI's and Azure's answer an unknown field with an error, or cache without one."""
    asked = target.habits.cache_key
    return owner_of(url_of(target)) in ("openai", "azure") if asked is None else asked


def _profile_knows_thinking(target: Target) -> bool:
    profile = profile_of(target.provider, target.model_name, target.base_url or "")
    return bool(profile.get("supports_thinking"))


def _anthropic_settings(target: Target) -> ModelSettings:
    from pydantic_ai.models.anthropic import AnthropicModelSettings

    settings, habits = AnthropicModelSettings(), target.habits
    if target.provider_cache and habits.cache_key is not False:
        settings["anthropic_cache_instructions"] = settings["anthropic_cache_messages"] = True
    if target.reasoning is not None and habits.reasoning_effort is not False:
        _think(settings, target)
    return settings


def _think(settings: AnthropicModelSettings, target: Target) -> None:
    """Thinking at Anthropic: adaptive at an effort where the model has that, else within the budget of tokens."""
    profile: Mapping[str, Any] = dict(profile_of("anthropic", target.model_name))
    budget = reasoning_tokens(target.reasoning)
    if target.reasoning == "none" or profile.get("anthropic_supports_adaptive_thinking"):
        settings["thinking"] = _level(target.reasoning or "none")
    else:
        settings["anthropic_thinking"] = {"type": "enabled", "budget_tokens": max(budget, LEAST_ANTHROPIC_BUDGET)}


def _level(reasoning: Reasoning) -> ThinkingLevel:
    effort = effort_within(reasoning)
    return False if effort == "none" else effort


def _bedrock_settings(target: Target) -> ModelSettings:
    """Thinking at an effort, which the provider layer writes as each family of models on Bedrock has it; but for a
    Claude of a budget, whose effort it takes for more tokens than the cap may have room for.
    """
    from pydantic_ai.models.bedrock import BedrockModelSettings

    settings, habits, more = BedrockModelSettings(), target.habits, dict(target.habits.extra_body)
    if target.provider_cache and habits.cache_key is not False:
        settings["bedrock_cache_instructions"] = settings["bedrock_cache_messages"] = True
    if target.reasoning is not None and habits.reasoning_effort is not False:
        if target.reasoning != "none" and _is_claude_of_a_budget(target):
            budget = max(reasoning_tokens(target.reasoning), LEAST_ANTHROPIC_BUDGET)
            more.setdefault("thinking", {"type": "enabled", "budget_tokens": budget})
        else:
            settings["thinking"] = _level(target.reasoning)
    if more:
        settings["bedrock_additional_model_requests_fields"] = more
    return settings


def _is_claude_of_a_budget(target: Target) -> bool:
    profile: Mapping[str, Any] = dict(profile_of("bedrock", target.model_name))
    is_claude = profile.get("bedrock_thinking_variant") == "anthropic"
    return is_claude and not profile.get("bedrock_supports_adaptive_thinking")


def _google_settings(target: Target) -> ModelSettings:
    from pydantic_ai.models.google import GoogleModelSettings

    settings = GoogleModelSettings()
    if target.reasoning is None or target.habits.reasoning_effort is False:
        return settings
    profile: Mapping[str, Any] = dict(profile_of("google", target.model_name))
    if target.reasoning == "none" or profile.get("google_supports_thinking_level"):
        settings["thinking"] = _level(target.reasoning)
    elif profile.get("supports_thinking"):
        settings["google_thinking_config"] = {"thinking_budget": reasoning_tokens(target.reasoning)}
    return settings


def provider_messages(messages: Sequence[Message], habits: Habits | None = None) -> list[ModelMessage]:
    """A conversation as pydantic-ai writes it: what is said between two answers is one request.

    Where the model takes no system role its text goes into the first user turn.
    """
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    made: list[ModelMessage] = []
    for message in without_system(messages) if habits and habits.system_role is False else messages:
        if message.role == "assistant":
            made.append(ModelResponse(parts=[TextPart(message.content)]))
            continue
        part = (SystemPromptPart if message.role == "system" else UserPromptPart)(message.content)
        last = made[-1] if made else None
        if isinstance(last, ModelRequest):
            made[-1] = ModelRequest(parts=[*last.parts, part])
        else:
            made.append(ModelRequest(parts=[part]))
    return made


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation for a model that takes no system role."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    if not rest or rest[0].role != "user":
        return [Message("user", system), *rest]
    return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]
