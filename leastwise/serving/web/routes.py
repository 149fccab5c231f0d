"""The routes of an endpoint, as a Starlette application: what FastAPI stands on, without the parts it would not use
(the shapes are OpenAI's and MLflow's, not ours to declare). It decides nothing about answers.

MLflow's agent server was looked at: it holds one function a process, writes its traces while the caller waits and tells
callers what an exception said.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as WebRequest
from starlette.responses import Response
from starlette.routing import Route

from leastwise.record.published.moves import CHALLENGER, CHAMPION
from leastwise.serving.answering_service import OK, REFUSED, TOO_SLOW, AnsweringService, Request
from leastwise.serving.traffic import Answered
from leastwise.serving.web import bodies
from leastwise.serving.web.admission import Admission
from leastwise.serving.web.refusals import Refusal, dumped

JSON, COUNTS = "application/json", "text/plain; version=0.0.4"
AT_ONCE = 8  # rows of one /invocations request in flight
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")


def application(name: str, service: AnsweringService, admission: Admission) -> Starlette:
    """The application of one worker; the use case's name is the model's."""
    routes = Routes(name, service, admission)
    guarded = {"/v1/chat/completions": routes.chat, "/invocations": routes.invocations}
    read = {"/v1/models": (routes.models, JSON), "/metrics": (routes.metrics, COUNTS)}
    made = Starlette(
        routes=[
            *(Route(path, routes.admitted(path, handler), methods=["POST"]) for path, handler in guarded.items()),
            *(Route(path, routes.keyed(*reading), methods=["GET"]) for path, reading in read.items()),
            Route("/health", routes.health, methods=["GET"]),
            Route("/ping", routes.health, methods=["GET"]),  # MLflow's name for it
        ],
        exception_handlers={404: _no_route, 405: _no_route, Exception: _defect},
    )
    made.router.redirect_slashes = False  # to an address that whoever asked has named
    return made


async def _no_route(request: WebRequest, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers or {}) if isinstance(error, HTTPException) else (404, {})
    words = f"There is no {request.method[:10]} {request.url.path[:100]} here."
    return Refusal(status, "no_such_route", words, headers=headers).response()


async def _defect(_request: WebRequest, _error: Exception) -> Response:
    return Refusal(500, "internal_error", "This request met a defect of the endpoint; its log says which.").response()


class Routes:
    """What each route answers."""

    def __init__(self, name: str, service: AnsweringService, admission: Admission) -> None:
        self.name, self.service, self.admission = name, service, admission

    def admitted(
        self, path: str, handler: Callable[[WebRequest, bytes], Awaitable[Response]]
    ) -> Callable[[WebRequest], Awaitable[Response]]:
        """A route for whoever shows a key and finds a seat; what goes wrong in one request stays in it."""

        async def route(request: WebRequest) -> Response:
            try:
                self.admission.check_key(request)
                with self.admission.seat():
                    response = await handler(request, await self.admission.body(request))
            except Refusal as refusal:
                response = refusal.response()
            self.service.counters.ended(path, response.status_code)
            return response

        return route

    def keyed(self, handler: Callable[[], bytes], kind: str) -> Callable[[WebRequest], Awaitable[Response]]:
        """A route that only reads, for whoever shows a key."""

        async def route(request: WebRequest) -> Response:
            try:
                self.admission.check_key(request)
            except Refusal as refusal:
                return refusal.response()
            return Response(await asyncio.to_thread(handler), media_type=kind)

        return route

    async def chat(self, request: WebRequest, body: bytes) -> Response:
        """OpenAI's chat completions."""
        chat = bodies.chat_of(bodies.parsed(body), self.service.settings)
        unit, is_load = _unit(request, chat.user, chat.text), self.admission.is_measuring(request)
        asked = Request(_new_id(request), chat.text, unit, self._alias(chat.model), is_load)
        done = await self.service.answer(asked)
        headers = _headers(request, done)
        if done.status != OK:
            raise _not_answered(done, headers)
        chat_id = f"chatcmpl-{done.request_id}"
        if chat.is_streamed:
            stream = bodies.chat_chunks(done, chat_id, self.name, chat.tells_usage)
            return Response(stream, headers=headers, media_type="text/event-stream")
        return _json(bodies.chat_answer(done, chat_id, self.name), headers)

    async def invocations(self, request: WebRequest, body: bytes) -> Response:
        """MLflow's scoring: each row is a request of its own."""
        texts = bodies.texts_of(bodies.parsed(body), self.service.settings)
        first, seats = _new_id(request), asyncio.Semaphore(AT_ONCE)
        ids = [first] if len(texts) == 1 else [f"{first}-{number}" for number in range(1, len(texts) + 1)]

        async def one(request_id: str, text: str) -> Answered:
            async with seats:
                return await self.service.answer(Request(request_id, text, _unit(request, "", text)))

        answered = await asyncio.gather(*(one(*each) for each in zip(ids, texts, strict=True)))
        headers = _headers(request, answered[0]) | {"x-request-id": _given_id(request) or first}
        if all(done.status != OK for done in answered):
            raise _not_answered(answered[0], headers)
        return _json(bodies.invocation_answer(answered), headers)

    async def health(self, _request: WebRequest) -> Response:
        """Which versions answer; 503 while it ends."""
        follower, is_ending = self.service.follower, self.service.is_ending
        said = {"status": "ending" if is_ending else "ok", "name": self.name}
        held = {"versions": follower.versions, "starting": follower.starting}
        return Response(orjson.dumps(said | held), 503 if is_ending else 200, media_type=JSON)

    def models(self) -> bytes:
        """The names a chat request may ask for."""
        versions = self.service.follower.versions
        names = [self.name, *(f"{self.name}@{alias}" for alias in versions)]
        listed = [{"id": each, "object": "model", "created": 0, "owned_by": "leastwise"} for each in names]
        return orjson.dumps({"object": "list", "data": listed})

    def metrics(self) -> bytes:
        """All counts as Prometheus reads them."""
        self.service.traffic.count()
        return self.service.counters.exposed()

    def _alias(self, model: str) -> str:
        """The alias a model name asks for, empty where the split decides."""
        if model in ("", self.name):
            return ""
        for alias in (CHAMPION, CHALLENGER):
            if model == f"{self.name}@{alias}" and self.service.follower.holder(alias):
                return alias
        raise Refusal(404, "model_not_found", f"There is no model {model[:100]!r} here, but {self.name!r}.", "model")


def _given_id(request: WebRequest) -> str:
    """The id that a caller, or the proxy before us, gave the request; empty where it gave none that can be kept."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else ""


def _new_id(request: WebRequest) -> str:
    """An id that no other request has, though its caller sends one twice; it begins with the caller's."""
    given = _given_id(request)
    return f"{given}-{uuid.uuid4().hex[:8]}" if given else uuid.uuid4().hex


def _unit(request: WebRequest, user: str, text: str) -> str:
    """Whom a split keeps together: the user, else the request as its caller names it, else the text."""
    return user or _given_id(request) or text


def _headers(request: WebRequest, done: Answered) -> dict[str, str]:
    request_id = _given_id(request) or done.request_id
    own = {"x-request-id": request_id, "x-model-version": done.version, "x-model-alias": done.alias}
    return own | ({"x-trace-id": done.trace_id} if done.trace_id else {})


def _json(value: bodies.Json, headers: dict[str, str]) -> Response:
    return Response(dumped(value), headers=headers, media_type=JSON)


def _not_answered(done: Answered, headers: dict[str, str]) -> Refusal:
    """What a caller is told of a failure: never its words, which may hold addresses and keys."""
    if done.status == REFUSED:
        words = f"The text is longer than the model behind this endpoint can read (request {done.request_id})."
        return Refusal(REFUSED, "text_too_long", words, headers=headers)
    what = "did not answer in time" if done.status == TOO_SLOW else "did not answer"
    words = f"The model behind this endpoint {what} (request {done.request_id})."
    return Refusal(done.status, "not_answered", words, retry_after_s=1, headers=headers)
