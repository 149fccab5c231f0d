"""A request that is refused: its status, and the error as OpenAI's clients read it. It decides no refusal."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KINDS = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}
UNREAD = frozenset({401, 403, 413, 415, 503})  # refused while the body was still coming
DISCARDED_BYTES, DISCARD_S = 64_000_000, 2.0  # of such a body, so that its sender gets to read why


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - says what is said, not that we failed
    """A status with the words for whoever sent the request; `code` is for programs."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """As OpenAI's clients read it."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        made = _Discarding if self.status in UNREAD else Response
        return made(dumped({"error": error}), self.status, headers, "application/json")


def dumped(value: object) -> bytes:
    """JSON of a value, of texts with half characters (no encoding has them) too."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


class _Discarding(Response):
    """Answers at once, and reads on without keeping anything: one who still sends would not see the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    seen, is_more = 0, True
    while is_more and seen < DISCARDED_BYTES:
        message = await receive()
        seen += len(message.get("body", b""))
        is_more = message["type"] == "http.request" and bool(message.get("more_body"))
