"""A server that speaks Fireworks' wire format, as its documentation and its public client of 2026 have it: data sets,
supervised fine-tuning jobs, loaded adapters, and chat.

What it trains answers like the training example that shares most words with what is asked, so that it knows what stood
in the rows and nothing else; the base answers the same to everything.

    with tuning_server() as host:
        base = {"uri": BASE, "venue": "managed", "base_url": host.base_url, "key_variable": "TUNING_KEY"}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers.web_server import chat_completion, served

ACCOUNT, KEY, BASE = "acme", "fw-the-right-key", "fireworks:accounts/fireworks/models/small-open"
USD_PER_MILLION = 3.0
RUN = ["PENDING", "VALIDATING", "RUNNING", "COMPLETED"]  # what looks at a job see, one after the other
Handler = Callable[["TuningServer", web.Request], Any]


@dataclass
class Job:
    """A job, and how often it was looked at."""

    body: dict[str, Any]
    states: list[str]
    looks: int = 0


@dataclass
class TuningServer:
    """A running server: what it was sent, and how it behaves from now on."""

    url: str = ""
    states: list[str] = field(default_factory=lambda: list(RUN))
    message: str = ""  # of the state a job ends in
    code: str = "INTERNAL"
    tells_cost: bool = True
    dearer: float = 1.0  # than its tokens, as the job says
    knows_cancel: bool = True
    room: int = 3
    answers_as: str = ""  # the model that chats say they are of, where it is another
    hold_jobs: bool = False  # a job is asked for, and nothing happens
    hold_answers: bool = False  # a job is made, and nobody is told
    outages: list[int] = field(default_factory=list)  # statuses of the next requests
    requests: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    data_sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    uploads: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    models: dict[str, list[tuple[set[str], str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where models answer."""
        return f"{self.url}/inference/v1"

    def count(self, method: str, ending: str) -> int:
        """How often that was asked for."""
        return sum(how == method and path.endswith(ending) for how, path in self.requests)

    async def make_data_set(self, incoming: web.Request) -> web.Response:
        body = await incoming.json()
        name = body["datasetId"]
        if name in self.data_sets:
            return told(409, 6, f"dataset {name} already exists")
        self.data_sets[name] = {"name": _at("datasets", name), "state": "UPLOADING", **body["dataset"]}
        return web.json_response(self.data_sets[name])

    async def upload(self, incoming: web.Request) -> web.Response:
        name = incoming.match_info["name"]
        self.files[name] = (await incoming.post())["file"].file.read().decode()
        self.uploads += 1
        return web.json_response({"id": name, "object": "file", "bytes": len(self.files[name])})

    async def validate(self, incoming: web.Request) -> web.Response:
        name = incoming.match_info["name"]
        lines = self.files[name].splitlines()
        chats = [json.loads(line)["messages"] for line in lines]
        if len(lines) != int(self.data_sets[name]["exampleCount"]) or any(c[-1]["role"] != "assistant" for c in chats):
            return told(400, 3, "the file does not hold what was announced")
        words = sum(len(message["content"].split()) + 4 for chat in chats for message in chat)
        self.data_sets[name] |= {"state": "READY", "estimatedTokenCount": str(words)}
        return web.json_response({})

    async def start(self, incoming: web.Request) -> web.Response:
        if self.hold_jobs:
            await asyncio.sleep(60)
        name, body = incoming.query["supervisedFineTuningJobId"], await incoming.json()
        if name in self.jobs:
            return told(409, 6, f"job {name} already exists")
        data = self.data_sets.get(body["dataset"].rpartition("/")[2], {})
        if data.get("state") != "READY" or f"fireworks:{body['baseModel']}" != BASE:
            return told(400, 9, "the dataset is not ready, or the model cannot be tuned")
        self.jobs[name] = Job(body | {"name": _at("supervisedFineTuningJobs", name)}, list(self.states))
        if self.hold_answers:
            await asyncio.sleep(60)
        return web.json_response(self._job(name))

    async def job(self, incoming: web.Request) -> web.Response:
        name = incoming.match_info["name"]
        if name not in self.jobs:
            return told(404, 5, f"job {name} not found")
        job = self.jobs[name]
        job.looks += 1
        shown = self._job(name)
        if shown["state"] == "JOB_STATE_COMPLETED":
            self._learn(name)
        return web.json_response(shown)

    async def cancel(self, incoming: web.Request) -> web.Response:
        if not self.knows_cancel:
            return told(501, 12, "Method Not Allowed")
        self.jobs[incoming.match_info["name"]].states = ["CANCELLED"]
        return web.json_response({})

    async def remove(self, incoming: web.Request) -> web.Response:
        held = self.jobs if "supervisedFineTuningJobs" in incoming.path else self.data_sets
        found = held.pop(incoming.match_info["name"], None)
        return web.json_response({}) if found else told(404, 5, "not found")

    async def data_set(self, incoming: web.Request) -> web.Response:
        found = self.data_sets.get(incoming.match_info["name"])
        return web.json_response(found) if found else told(404, 5, "dataset not found")

    async def list_loaded(self, incoming: web.Request) -> web.Response:
        each = [self._loaded(model) for model in self.loaded]
        first = {"deployedModels": [], "nextPageToken": "2"}  # its pages may be empty before the last
        return web.json_response({"deployedModels": each} if incoming.query.get("pageToken") else first)

    async def load(self, incoming: web.Request) -> web.Response:
        model = (await incoming.json())["model"]
        if model not in self.models:
            return told(400, 9, "the model is not READY")
        if len(self.loaded) >= self.room:
            return told(429, 8, "the account has 3 adapters loaded")
        self.loaded[model] = "DEPLOYING"
        return web.json_response(self._loaded(model))

    async def get_loaded(self, incoming: web.Request) -> web.Response:
        model = next(each for each in self.loaded if each.endswith(incoming.match_info["name"]))
        shown = web.json_response(self._loaded(model))
        self.loaded[model] = "DEPLOYED"
        return shown

    async def chat(self, incoming: web.Request) -> web.Response:
        body = await incoming.json()
        model, text = body["model"], body["messages"][-1]["content"]
        self.asked.append(model)
        if f"fireworks:{model}" == BASE:
            return chat_completion(model, "I cannot tell.", 20, 4)
        if self.loaded.get(model) != "DEPLOYED":
            error = {"message": "Model not found, inaccessible, and/or not deployed", "code": "NOT_FOUND"}
            return web.json_response({"error": error}, status=404)
        words = set(text.split())
        answer = max(self.models[model], key=lambda each: len(each[0] & words))[1]
        return chat_completion(self.answers_as or model, answer, 20, 2)

    def _job(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        state = job.states[min(job.looks, len(job.states) - 1)]
        shown = job.body | {"state": f"JOB_STATE_{state}", "jobProgress": {"percent": 25 * job.looks}}
        if state in ("FAILED", "CANCELLED", "EXPIRED"):
            shown["status"] = {"code": self.code, "message": self.message}
        if self.tells_cost and state not in ("PENDING", "VALIDATING"):
            data = self.data_sets.get(name) or {"estimatedTokenCount": "0"}
            nanos = int(1000 * int(data["estimatedTokenCount"]) * job.body["epochs"] * USD_PER_MILLION * self.dearer)
            units, rest = divmod(nanos, 1_000_000_000)
            shown["estimatedCost"] = {"currencyCode": "USD", "units": str(units), "nanos": rest}
            job.body["estimatedCost"] = shown["estimatedCost"]
        return shown

    def _learn(self, name: str) -> None:
        chats = [json.loads(line)["messages"] for line in self.files[name].splitlines()]
        model = self.jobs[name].body["outputModel"]
        self.models[model] = [(set(chat[-2]["content"].split()), chat[-1]["content"]) for chat in chats]

    def _loaded(self, model: str) -> dict[str, Any]:
        name = _at("deployedModels", model.rpartition("/")[2])
        return {"name": name, "model": model, "serverless": True, "state": self.loaded[model]}


def told(status: int, code: int, message: str) -> web.Response:
    """An error as grpc's gateway writes it."""
    return web.json_response({"code": code, "message": message, "details": []}, status=status)


def _at(kind: str, name: str) -> str:
    return f"accounts/{ACCOUNT}/{kind}/{name}"


@contextmanager
def tuning_server() -> Iterator[TuningServer]:
    """A server on a free port of this machine; it ends with the block."""
    server, account, name = TuningServer(), f"/v1/accounts/{ACCOUNT}", "{name}"

    def guarded(handler: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def respond(incoming: web.Request) -> web.StreamResponse:
            server.requests.append((incoming.method, incoming.path))
            server.keys.add(incoming.headers.get("Authorization", ""))
            if server.outages:
                return told(server.outages.pop(0), 14, "try again")
            if incoming.headers.get("Authorization") != f"Bearer {KEY}":
                return told(401, 16, f"the key {incoming.headers.get('Authorization')} is not known")
            response: web.StreamResponse = await handler(incoming)
            return response

        return respond

    jobs, sets, loaded = f"{account}/supervisedFineTuningJobs", f"{account}/datasets", f"{account}/deployedModels"
    routes = [
        web.post(sets, guarded(server.make_data_set)),
        web.post(f"{sets}/{name}:upload", guarded(server.upload)),
        web.post(f"{sets}/{name}:validateUpload", guarded(server.validate)),
        web.get(f"{sets}/{name}", guarded(server.data_set)),
        web.delete(f"{sets}/{name}", guarded(server.remove)),
        web.post(jobs, guarded(server.start)),
        web.post(f"{jobs}/{name}:cancel", guarded(server.cancel)),
        web.get(f"{jobs}/{name}", guarded(server.job)),
        web.delete(f"{jobs}/{name}", guarded(server.remove)),
        web.get(loaded, guarded(server.list_loaded)),
        web.post(loaded, guarded(server.load)),
        web.get(f"{loaded}/{name}", guarded(server.get_loaded)),
        web.post("/inference/v1/chat/completions", guarded(server.chat)),
    ]
    with served(*routes) as url:
        server.url = url
        yield server
