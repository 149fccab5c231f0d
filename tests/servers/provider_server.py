"""A server that speaks the wire formats of providers beside the three makers, as each documents its own: Azure's paths
and errors, OpenRouter's envelope, DeepSeek's counts of cached tokens, Bedrock's Converse.

The first path part chooses whose it is; after a `-` what it does instead of answering. The right answer is the word
after `key=` in what was asked last.

    with provider_server() as server:
        target = Target("deepseek:m", base_url=server.base_url("deepseek"), api_key="k")
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.servers.web_server import served

CHAT_USAGE: dict[str, dict[str, Any]] = {
    "azure": {"prompt_tokens": 950, "prompt_tokens_details": {"cached_tokens": 900}},
    "openrouter": {"prompt_tokens": 950, "prompt_tokens_details": {"cached_tokens": 900}, "cost": 0.0001},
    "together": {"prompt_tokens": 950, "cached_tokens": 900},
    "fireworks": {"prompt_tokens": 950, "prompt_tokens_details": {"cached_tokens": 900}},
    "deepseek": {"prompt_tokens": 950, "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 50},
    "ollama": {"prompt_tokens": 950},
    "vllm": {"prompt_tokens": 950, "prompt_tokens_details": {"cached_tokens": 900}},
}
REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {  # of content, as each words it
    "azure": (
        400,
        {
            "message": "The prompt triggered Azure OpenAI's content management policy.",
            "code": "content_filter",
            "param": "prompt",
            "type": None,
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation"},
        },
    ),
    "openrouter": (403, {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}),
    "together": (422, {"message": "Input flagged: content policy", "type": "invalid_request_error", "code": None}),
    "fireworks": (400, {"message": "the prompt was rejected by the safety filter", "code": "content_policy_violation"}),
    "deepseek": (400, {"message": "Content Exists Risk", "type": "invalid_request_error", "code": None}),
}
UNKNOWN_MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "azure": (404, {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}),
    "openrouter": (400, {"code": 400, "message": "m is not a valid model ID"}),
    "together": (404, {"message": "Unable to access model m", "code": "model_not_available"}),
    "fireworks": (404, {"message": "Model not found, inaccessible, and/or not deployed", "code": "NOT_FOUND"}),
    "deepseek": (400, {"message": "Model Not Exist", "type": "invalid_request_error", "code": None}),
    "ollama": (404, {"message": 'model "m" not found, try pulling it first', "type": "api_error"}),
    "vllm": (404, {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}),
}


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    address: str
    nth: int


class ProviderServer:
    """A running server, and what it was asked under each name."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: dict[str, list[Asked]] = defaultdict(list)

    def base_url(self, name: str) -> str:
        """The address of a provider, or of one that does something else: `azure`, `azure-busy`."""
        return f"{self.url}/{name}"

    async def respond(self, incoming: web.Request) -> web.StreamResponse:
        name = incoming.match_info["name"]
        provider, _, deed = name.partition("-")
        nth = len(self.asked[name]) + 1
        asked = Asked(await incoming.json(), dict(incoming.headers), str(incoming.rel_url), nth)
        self.asked[name].append(asked)
        return _converse(asked, deed) if provider == "bedrock" else _chat(provider, asked, deed)


@contextmanager
def provider_server() -> Iterator[ProviderServer]:
    """A server of all of them on a free port of this machine; it ends with the block."""
    server = ProviderServer()
    with served(web.post("/{name}/{rest:.*}", server.respond)) as url:
        server.url = url
        yield server


def _chat(provider: str, asked: Asked, deed: str) -> web.Response:
    if deed == "busy" and asked.nth == 1:
        told = {"error": {"message": "Rate limit reached", "code": 429, "type": "rate_limit"}}
        return web.json_response(told, status=429, headers={"Retry-After": "1"})
    if deed in ("refusing", "unknown"):
        status, error = (REFUSALS if deed == "refusing" else UNKNOWN_MODELS)[provider]
        return web.json_response({"error": error}, status=status)
    if deed == "locked":
        return web.json_response({"error": {"message": "Incorrect API key provided", "code": 401}}, status=401)
    label = asked.body["messages"][-1]["content"].split("key=")[-1].split()[0]
    text = json.dumps({"label": label}) if "response_format" in asked.body else label
    usage = CHAT_USAGE[provider] | {"completion_tokens": 3, "total_tokens": 953}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    envelope = {"id": "1", "object": "chat.completion", "created": 1, "model": f"{provider}-model-2026-10-01"}
    if provider == "openrouter":
        envelope["provider"], choice["native_finish_reason"] = "Novita", "stop"
    if provider == "azure":
        choice["content_filter_results"] = {"hate": {"filtered": False, "severity": "safe"}}
    return web.json_response(envelope | {"choices": [choice], "usage": usage})


def _converse(asked: Asked, deed: str) -> web.Response:
    if deed == "busy" and asked.nth == 1:
        return _aws_error(429, "ThrottlingException", "Too many requests, please wait", {"Retry-After": "1"})
    if deed == "unknown":
        return _aws_error(400, "ValidationException", "The provided model identifier is invalid.")
    if deed == "locked":
        return _aws_error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if deed == "down" and asked.nth == 1:
        return _aws_error(503, "ServiceUnavailableException", "Bedrock is unable to process your request.")
    said: list[dict[str, Any]] = [{"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}]
    stop, usage = "end_turn", {"inputTokens": 50, "cacheReadInputTokens": 900, "cacheWriteInputTokens": 20}
    if deed == "refusing":
        said, stop = [{"text": "Blocked by a guardrail."}], "guardrail_intervened"
    else:
        texts = [part["text"] for part in asked.body["messages"][-1]["content"] if "text" in part]
        label = texts[-1].split("key=")[-1].split()[0]
        said.append({"text": json.dumps({"label": label}) if "outputConfig" in asked.body else label})
    answer = {"output": {"message": {"role": "assistant", "content": said}}, "stopReason": stop}
    return web.json_response(
        answer | {"usage": usage | {"outputTokens": 3, "totalTokens": 973}, "metrics": {"latencyMs": 5}}
    )


def _aws_error(status: int, code: str, words: str, headers: Mapping[str, str] | None = None) -> web.Response:
    said = {"x-amzn-ErrorType": code} | dict(headers or {})
    return web.json_response({"message": words}, status=status, headers=said)
