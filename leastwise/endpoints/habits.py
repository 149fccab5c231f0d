"""How each model wants to be asked: known from the provider layer's profiles, or read out of what an endpoint refuses.

What a person says in the use case goes before both (`leastwise.use_case.habits`). It sends nothing; who tries again is
in `leastwise.endpoints.adaptation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from leastwise.endpoints.request import Request, Target
from leastwise.errors import BadInput
from leastwise.use_case import UseCase
from leastwise.use_case.habits import REASONING_TOKENS, Effort, Habits
from leastwise.use_case.hosts import DECIDING
from leastwise.use_case.model import Model

if TYPE_CHECKING:
    from pydantic_ai.profiles import ModelProfile

MAY_THINK = re.compile(
    r"^(openai:(gpt-([5-9]|\d\d)|o\d)|anthropic:claude|google:gemini|"
    r"(azure|bedrock|openrouter|together|fireworks|deepseek|ollama|vllm):)"
)
PROFILES_BY_HOST = {
    "api.deepseek.com": "deepseek:DeepSeekProvider",
    "openrouter.ai": "openrouter:OpenRouterProvider",
    "api.together.xyz": "together:TogetherProvider",
    "api.fireworks.ai": "fireworks:FireworksProvider",
    "api.cerebras.ai": "cerebras:CerebrasProvider",
    "api.moonshot.ai": "moonshotai:MoonshotAIProvider",
    "api.studio.nebius.com": "nebius:NebiusProvider",
    "api.sambanova.ai": "sambanova:SambaNovaProvider",
    "dashscope-intl.aliyuncs.com": "alibaba:AlibabaProvider",
}
_KINDS = ("OpenAI", "Anthropic", "Google", "Azure", "Bedrock", "OpenRouter", "Together", "Fireworks", "DeepSeek")
_MODULES = {kind.casefold(): f"{kind.casefold()}:{kind}Provider" for kind in (*_KINDS, "Ollama", "VLLM")}
_MODULES |= dict.fromkeys(DECIDING, "system_one:SystemOneProvider")  # all decision models have one profile
_SERVERS = ("ollama", "vllm")  # of any model: what they take is the model's, which is not known by its name
_SAMPLING = {"temperature", "openai_logprobs"}


def profile_of(provider: str, name: str, url: str = "") -> ModelProfile:
    """What the provider layer knows of a model at that address; empty where it knows nothing."""
    host = urlsplit(url).hostname or ""
    where = PROFILES_BY_HOST.get(host) or _MODULES[provider]
    return _profile(where, name)


@cache
def _profile(where: str, name: str) -> ModelProfile:
    module, _, kind = where.partition(":")
    provider = getattr(import_module(f"pydantic_ai.providers.{module}"), kind)
    try:
        return cast("ModelProfile", provider.model_profile(name) or {})
    except ValueError:  # openrouter and together want maker/model
        return {}


def known_habits(target: Target) -> Habits:
    """What is known of a target without asking it: only what differs from the common case is filled in."""
    profile = cast("Mapping[str, Any]", profile_of(target.provider, target.model_name, target.base_url or ""))
    refused = set(profile.get("openai_unsupported_model_settings") or ())
    if samples_by_itself(profile, target):
        refused |= _SAMPLING
    return Habits(
        cap_field="max_tokens" if profile.get("openai_chat_supports_max_completion_tokens") is False else None,
        system_role=False if profile.get("openai_system_prompt_role") == "user" else None,
        temperature=False if "temperature" in refused else None,
        logprobs=False if "openai_logprobs" in refused else None,
        json_schema=_takes_schema(profile, target),
        strict_schema=False if profile.get("openai_supports_strict_tool_definition") is False else None,
    )


def _takes_schema(profile: Mapping[str, Any], target: Target) -> bool | None:
    """Whether it is known to take a schema. What Bedrock's models take is listed one by one, and the provider layer
    sends none to the others.
    """
    known = profile.get("supports_json_schema_output") if profile else None
    return bool(known) if target.dialect == "bedrock" else known


def samples_by_itself(profile: Mapping[str, Any], target: Target) -> bool:
    """Whether a model refuses sampling parameters in the way it is asked: most do while they think."""
    if profile.get("anthropic_disallows_sampling_settings"):
        return True
    if not profile.get("openai_supports_reasoning"):
        return False
    if target.reasoning in (None, "none"):
        return bool(profile.get("thinking_always_enabled") or (target.reasoning is None and _thinks(profile)))
    return True


def _thinks(profile: Mapping[str, Any]) -> bool:
    """Whether a model thinks though nobody tells it to; Gemini's profiles do not say so of themselves."""
    by_itself = profile.get("thinking_enabled_by_default") or profile.get("thinking_always_enabled")
    return bool(by_itself or ("google_supports_thinking_level" in profile and profile.get("supports_thinking")))


def efforts_of(model: Model) -> tuple[Effort, ...]:
    """The efforts a model can be asked for within its own `reasoning`, least first, as the provider layer knows it;
    empty where none is known to be taken: an effort would be dropped there without a word.
    """
    provider, _, name = model.uri.partition(":")
    if model.is_open or model.decides or provider in _SERVERS or model.habits.reasoning_effort is False:
        return ()
    profile = cast("Mapping[str, Any]", profile_of(provider, model.served_name or name, model.base_url or ""))
    if not (profile.get("supports_thinking") and "thinking_always_enabled" in profile):  # a gateway says so of all
        return ()
    within: list[Effort] = [each for each, tokens in REASONING_TOKENS.items() if tokens <= model.reasoning_tokens]
    return tuple(each for each in within if each != "none" or not profile["thinking_always_enabled"])


def drops_effort(model: Model) -> bool:
    """Whether a model is known to take no effort, so that it would be dropped, by its host or by the provider layer."""
    provider, _, name = model.uri.partition(":")
    if model.is_open or model.decides:
        return model.decides
    profile = cast("Mapping[str, Any]", profile_of(provider, model.served_name or name, model.base_url or ""))
    if profile.get("supports_thinking"):
        return False
    is_own = model.base_url is None and provider == "openai" and not MAY_THINK.match(model.uri)
    return is_own or provider in ("google", "bedrock")


def with_known_reasoning(use_case: UseCase) -> UseCase:
    """The use case with a budget for every model that is known to think by itself and has none.

    BadInput where a model is to think nothing and always thinks: it would be cut off and judged by that.
    """
    models, judge = use_case.models, use_case.judge
    candidates = tuple(_with_reasoning(model, "models.candidates") for model in models.candidates)
    changed: dict[str, object] = {}
    if candidates != models.candidates:
        changed["models"] = models.model_copy(update={"candidates": candidates})
    if judge:
        judges = tuple(_with_reasoning(model, "judge.models") for model in judge.models)
        if judges != judge.models:
            changed["judge"] = judge.model_copy(update={"models": judges})
    return use_case.model_copy(update=changed) if changed else use_case


def _with_reasoning(model: Model, where: str) -> Model:
    if model.reasoning not in (None, "none") and drops_effort(model):
        raise BadInput(
            f"{where}: {model.uri} takes no effort of thinking, so reasoning: {model.reasoning} would change nothing "
            "but what is reserved for it; remove reasoning from it, or name a model that thinks"
        )
    if model.reasoning not in (None, "none") or not MAY_THINK.match(model.uri):
        return model
    provider, _, name = model.uri.partition(":")
    profile = cast("Mapping[str, Any]", profile_of(provider, model.served_name or name, model.base_url or ""))
    if model.reasoning == "none":
        if profile.get("thinking_always_enabled"):
            raise BadInput(f"{where}: {model.uri} always thinks; set its reasoning to low, medium, high or tokens")
        return model
    return model.model_copy(update={"reasoning": "medium"}) if _thinks(profile) else model


# What a refusal names → what is learned of it. Providers word these differently; the name of the field stays the same.
_NOT_A_HABIT = re.compile(
    r"context.?length|context window|too long|too large|at most|exceed|content.?(filter|policy|management)|"
    r"inspection|inappropriate|safety|risk|moderation|flagged"
)
_SYSTEM = re.compile(
    r"system (role|message|prompt|instruction)|developer instruction|role.{0,12}system|"
    r"only user and assistant|roles must alternate"
)
_STRICT = re.compile(r"\bstrict\b|additionalproperties|invalid schema|'required' is required")
_SCHEMA = re.compile(
    r"response_format|json_schema|structured.?output|response.?(json.?)?schema|response.?mime.?type|json.?mode|"
    r"output_config|guided|grammar"
)
_EFFORT = re.compile(
    r"reasoning_effort|reasoning\.effort|'thinking'|`thinking`|thinking.?(config|level|budget)|thinking is not|"
    r"only works in thinking mode"
)
_CACHE = re.compile(r"prompt_cache_key|cache_control")


def understood(refusal: str, request: Request, habits: Habits) -> Habits | None:
    """What a refusal teaches of whoever refused, beyond `habits`; None where it says nothing of how to ask."""
    words = refusal.casefold()
    if cap := _other_cap(words, habits):
        return cap
    if is_of_content(words):
        return None
    if "logprob" in words and habits.logprobs is not False and request.wants_confidence:
        return Habits(logprobs=False)
    if "temperature" in words and habits.temperature is not False:
        return Habits(temperature=False)
    if _CACHE.search(words) and habits.cache_key is not False:
        return Habits(cache_key=False)
    if _EFFORT.search(words) and habits.reasoning_effort is not False:
        return Habits(reasoning_effort=False)
    if request.is_constrained and _STRICT.search(words) and habits.strict_schema is not False:
        return Habits(strict_schema=False)
    if request.is_constrained and _SCHEMA.search(words) and habits.json_schema is not False:
        return Habits(json_schema=False)
    if _SYSTEM.search(words) and habits.system_role is not False and _has_system(request):
        return Habits(system_role=False)
    return None


def is_of_content(refusal: str) -> bool:
    """Whether what was said is refused (its length, its content), and not the way of asking."""
    return _NOT_A_HABIT.search(refusal.casefold()) is not None


def _other_cap(words: str, habits: Habits) -> Habits | None:
    """The other name of the cap, where the one that was sent is refused as a field and not for its value."""
    sent = habits.cap_field or "max_completion_tokens"
    if not re.search(rf"\b{sent}\b", words) or re.search(r"too large|at most|exceed|less than|must be|minimum", words):
        return None
    return Habits(cap_field="max_tokens" if sent == "max_completion_tokens" else "max_completion_tokens")


def suspects(request: Request, habits: Habits, provider_cache: bool) -> list[Habits]:
    """What may be at fault where a refusal names nothing, likeliest first, each alone."""
    found: list[Habits] = []
    if request.wants_confidence and habits.logprobs is None:
        found.append(Habits(logprobs=False))
    if habits.temperature is None:
        found.append(Habits(temperature=False))
    if habits.cap_field is None:
        found.append(Habits(cap_field="max_tokens"))
    if habits.system_role is None and _has_system(request):
        found.append(Habits(system_role=False))
    if request.is_constrained and habits.strict_schema is None:
        found.append(Habits(strict_schema=False))
    if provider_cache and habits.cache_key is None:
        found.append(Habits(cache_key=False))
    return found


def _has_system(request: Request) -> bool:
    return any(message.role == "system" for message in request.messages)
