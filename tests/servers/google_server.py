"""A server that speaks Google's generateContent with the habits real models have: the first path part chooses which.

The right answer is the word after `key=` in what was asked last. Errors are worded as Google words them.

    with google_server() as server:
        target = Target("google:m", base_url=server.base_url("good"), api_key="k")
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.servers.web_server import served

USAGE = {"promptTokenCount": 50, "candidatesTokenCount": 3, "totalTokenCount": 53}


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    address: str
    nth: int

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.body.get("generationConfig") or {})

    @property
    def thinking(self) -> dict[str, Any]:
        """How it is to think; the interface takes both spellings, the SDK writes either."""
        told = self.config.get("thinkingConfig") or {}
        return {name.replace("_", "").lower(): value for name, value in told.items()}

    @property
    def right(self) -> str:
        label = self.body["contents"][-1]["parts"][-1]["text"].split("key=")[-1].split()[0]
        schema = self.config.get("responseJsonSchema") or self.config.get("responseSchema")
        return json.dumps({"label": label}) if schema else label


Habit = Callable[[Asked], web.Response]
HABITS: dict[str, Habit] = {}


class GoogleServer:
    """A running server, and what each of its habits was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: dict[str, list[Asked]] = defaultdict(list)

    def base_url(self, habit: str) -> str:
        """The address under which it has this habit."""
        assert habit in HABITS, f"no habit {habit}"
        return f"{self.url}/{habit}"

    async def respond(self, incoming: web.Request) -> web.StreamResponse:
        name = incoming.match_info["habit"]
        asked = Asked(await incoming.json(), dict(incoming.headers), str(incoming.rel_url), len(self.asked[name]) + 1)
        self.asked[name].append(asked)
        return HABITS[name](asked)


@contextmanager
def google_server() -> Iterator[GoogleServer]:
    """A server with every habit on a free port of this machine; it ends with the block."""
    server = GoogleServer()
    with served(web.post("/{habit}/v1beta/models/{call}", server.respond)) as url:
        server.url = url
        yield server


def habit(answer: Habit) -> Habit:
    HABITS[answer.__name__.removeprefix("_")] = answer
    return answer


def generated(
    text: str | None, reason: str = "STOP", usage: Mapping[str, int] | None = None, thought: str | None = None
) -> web.Response:
    """An answer; without text its candidate has no parts, as Google leaves them out."""
    said = ([{"text": thought, "thought": True}] if thought else []) + ([] if text is None else [{"text": text}])
    content: dict[str, Any] = {"role": "model"} | ({"parts": said} if said else {})
    candidate = {"content": content, "finishReason": reason, "index": 0}
    return web.json_response({"candidates": [candidate], "usageMetadata": usage or USAGE, "modelVersion": "m"})


def refused(status: int, name: str, message: str, **details: Any) -> web.Response:
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    return web.json_response({"error": error | details}, status=status)


def filtered(reason: str) -> Habit:
    def answer(asked: Asked) -> web.Response:
        return generated(None, reason, {"promptTokenCount": 50, "totalTokenCount": 50})

    return answer


FILTERED = ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII")
HABITS |= {reason.lower(): filtered(reason) for reason in FILTERED}


@habit
def _good(asked: Asked) -> web.Response:
    return generated(asked.right)


@habit
def _cached_and_thought(asked: Asked) -> web.Response:
    """Thoughts are no part of candidatesTokenCount, cached content is part of promptTokenCount."""
    counts = {"promptTokenCount": 950, "cachedContentTokenCount": 900, "candidatesTokenCount": 3}
    return generated(asked.right, usage=counts | {"thoughtsTokenCount": 20, "totalTokenCount": 973}, thought="hm")


@habit
def _starved(asked: Asked) -> web.Response:
    """The whole cap goes into thoughts; the candidate has no part."""
    cap = asked.config["maxOutputTokens"]
    if cap >= 500:
        return generated(asked.right, usage=USAGE | {"thoughtsTokenCount": 480, "totalTokenCount": 533})
    return generated(
        None, "MAX_TOKENS", {"promptTokenCount": 50, "thoughtsTokenCount": cap, "totalTokenCount": 50 + cap}
    )


@habit
def _cut(asked: Asked) -> web.Response:
    return generated(f"{asked.right} because", "MAX_TOKENS")


@habit
def _silent(asked: Asked) -> web.Response:
    """Ends without a word."""
    return generated(None)


@habit
def _blocked(asked: Asked) -> web.Response:
    """The prompt is blocked: no candidate at all."""
    usage = {"promptTokenCount": 50, "totalTokenCount": 50}
    return web.json_response({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage})


@habit
def _no_system(asked: Asked) -> web.Response:
    if "systemInstruction" in asked.body:
        return refused(400, "INVALID_ARGUMENT", "Developer instruction is not enabled for models/gemma-3-27b-it")
    return generated(asked.right)


@habit
def _no_schema(asked: Asked) -> web.Response:
    if "responseJsonSchema" in asked.config or "responseMimeType" in asked.config:
        return refused(400, "INVALID_ARGUMENT", "JSON mode is not enabled for models/gemma-3-27b-it")
    return generated(asked.right)


@habit
def _old_interface(asked: Asked) -> web.Response:
    """A gateway of before responseJsonSchema."""
    if "responseJsonSchema" in asked.config:
        words = "Invalid JSON payload received. Unknown name \"responseJsonSchema\" at 'generation_config'"
        return refused(400, "INVALID_ARGUMENT", f"{words}: Cannot find field.")
    return generated(asked.right)


@habit
def _no_thinking(asked: Asked) -> web.Response:
    if "thinkingConfig" in asked.config:
        return refused(400, "INVALID_ARGUMENT", "Thinking level is not supported for this model.")
    return generated(asked.right)


@habit
def _no_budget(asked: Asked) -> web.Response:
    if "thinkingConfig" in asked.config:
        return refused(400, "INVALID_ARGUMENT", "Unable to submit request because thinking_budget is not supported")
    return generated(asked.right)


@habit
def _always_thinks(asked: Asked) -> web.Response:
    """Cannot be told to think nothing, and then thinks for as long as it may."""
    if asked.thinking.get("thinkingbudget") == 0:
        return refused(400, "INVALID_ARGUMENT", "Budget 0 is invalid. This model only works in thinking mode.")
    return _starved(asked)


@habit
def _bad_key(_: Asked) -> web.Response:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    return refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details=[detail])


@habit
def _unknown_model(_: Asked) -> web.Response:
    return refused(
        404, "NOT_FOUND", "models/m is not found for API version v1beta, or is not supported for generateContent."
    )


@habit
def _too_long(_: Asked) -> web.Response:
    message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    return refused(400, "INVALID_ARGUMENT", message)


@habit
def _exhausted(asked: Asked) -> web.Response:
    """Too many requests once, with the wait in the error alone."""
    if asked.nth > 1:
        return generated(asked.right)
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
    return refused(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", details=[detail])


@habit
def _overloaded(asked: Asked) -> web.Response:
    if asked.nth > 1:
        return generated(asked.right)
    return refused(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
