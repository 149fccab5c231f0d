"""A stand-in for hosts of decision models: OpenAI's Decisions, Google's decisions and System One, each in its own wire
format, told apart by path. The text says which option is right; the first part of the address what goes wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers.web_server import served

MOST = 4  # options that the host behind System One has letters for
ODD = 0.03  # what a distribution lacks where it is told carelessly


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class DecisionServer:
    """Where it listens, and what it was asked, by habit."""

    address: str = ""
    asked: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))

    def base_url(self, habit: str) -> str:
        """The address of a host with this habit."""
        return f"{self.address}/{habit}"

    async def openai(self, request: web.Request) -> web.Response:
        """`POST /v1/decisions`."""
        habit, body = await self._noted(request)
        (question,) = body["questions"]
        likely = _likely([each["value"] for each in question["choices"]], str(body["input"]), habit)
        if refused := _refused(habit):
            return refused
        answer: dict[str, Any] = {
            "name": question["name"],
            "type": "choice",
            "choice": max(likely, key=likely.__getitem__),
        }
        answer |= {"confidence": 0.5, "probabilities": [{"value": k, "probability": v} for k, v in likely.items()]}
        if habit == "declines":
            answer = {"name": question["name"], "type": "refusal"}
        usage = {"input_tokens": 1950, "input_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 0}}
        usage |= {"output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1950}
        return web.json_response({"model": "gpt-6-luna-2026-09-01", "answers": [answer], "usage": usage})

    async def google(self, request: web.Request) -> web.Response:
        """`POST /v1beta/decisions`."""
        habit, body = await self._noted(request)
        ((name, question),) = body["questions"].items()
        likely = _likely(list(question["criteria"]), str(body["input"]), habit)
        if refused := _refused(habit):
            return refused
        answer = {"type": "choice", "choice": max(likely, key=likely.__getitem__), "confidence": 0.5}
        usage = {"total_input_tokens": 1950, "total_output_tokens": 0}
        usage_by = [{"modality": "TEXT", "tokens": 1950}]
        told = {name: answer | {"probabilities": likely}}
        return web.json_response({"answers": told, "usage": usage | {"input_tokens_by_modality": usage_by}})

    async def system_one(self, request: web.Request) -> web.Response:
        """`POST /v1/systemone`."""
        habit, body = await self._noted(request)
        ((name, question),) = body["questions"].items()
        options = list(question["criteria"])
        if habit == "lettered" and len(options) > MOST:
            words = f"questions.{name}: too many options ({len(options)}), this model supports at most {MOST}"
            return web.json_response({"error": {"code": 400, "message": words}}, status=400)
        if refused := _refused(habit):
            return refused
        likely = _likely(options, str(body["state"]), habit)
        answer = {"type": "choice", "choice": max(likely, key=likely.__getitem__), "confidence": 0.5}
        usage = {"input_tokens": 1950, "output_tokens": 0}
        told = {name: answer | {"probabilities": likely}}
        return web.json_response({"model": "clm-v0.1", "answers": told, "usage": usage})

    async def _noted(self, request: web.Request) -> tuple[str, dict[str, Any]]:
        habit, body = request.match_info["habit"], json.loads(await request.read())
        self.asked[habit].append(Asked(request.path, dict(request.headers), body))
        return habit, body


def _likely(options: list[str], text: str, habit: str) -> dict[str, float]:
    """0.9 for the option that the text names, the rest in equal parts; as it is told with this habit."""
    right = next((each for each in options if f"key={each}" in text), options[0])
    rest = 0.1 / (len(options) - 1)
    likely = {each: 0.9 if each == right else rest for each in options}
    if habit == "careless":
        likely[right] -= ODD
    if habit == "rounded":
        return {each: 1.0 if each == right else 0.0 for each in options}
    return likely


def _refused(habit: str) -> web.Response | None:
    if habit == "no_key":
        return web.json_response({"error": {"code": 401, "message": "no such key"}}, status=401)
    return None


@contextmanager
def decision_server() -> Iterator[DecisionServer]:
    """A running host of decision models, until the block ends."""
    server = DecisionServer()
    routes = (
        web.post("/{habit}/v1/decisions", server.openai),
        web.post("/{habit}/v1beta/decisions", server.google),
        web.post("/{habit}/v1/systemone", server.system_one),
    )
    with served(*routes) as address:
        server.address = address
        yield server
