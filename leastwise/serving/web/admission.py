"""Who and what is let in: keys, sizes, kinds, and how many at once. What a body says is read in `bodies.py`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Iterator

from starlette.requests import ClientDisconnect, Request

from leastwise.serving.counters import Counters
from leastwise.serving.settings import EndpointSettings
from leastwise.serving.web.refusals import Refusal

OF_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
RETRY_AFTER_S = 1
LOAD_HEADER = "x-leastwise-load"


class Admission:
    """The door of one worker."""

    def __init__(
        self, keys: tuple[str, ...], settings: EndpointSettings, counters: Counters, load_key: str = ""
    ) -> None:
        self.settings, self.counters = settings, counters
        self._digests = [_digest(key) for key in keys]
        self._load_digest = _digest(load_key) if load_key else b""
        self._in_flight = 0

    def is_measuring(self, request: Request) -> bool:
        """Whether a request comes from whoever started this endpoint and measures what it carries."""
        shown = request.headers.get(LOAD_HEADER, "")
        return bool(self._load_digest and shown) and hmac.compare_digest(self._load_digest, _digest(shown))

    def check_key(self, request: Request) -> None:
        """Refuse who shows no key, or, where none is asked for, who was sent here by another site's page."""
        if not self._digests:
            host = request.headers.get("host", "")
            if _without_port(host) not in OF_THIS_MACHINE and _without_port(host) != self.settings.host:
                raise Refusal(403, "foreign_host", "Without a key this endpoint answers to its own address only.")
            return
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        digest = _digest(shown.strip() if scheme.lower() == "bearer" else "")
        # Every key is compared, each in constant time: neither a key nor its place can be told from how long it took.
        if sum(hmac.compare_digest(digest, each) for each in self._digests) == 0:
            raise Refusal(401, "invalid_api_key", "Show a key of this endpoint: Authorization: Bearer KEY.")

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """A place among the requests in flight, for as long as the block lasts; refused where all are taken."""
        if self._in_flight >= self.settings.most_in_flight:
            words = f"{self.settings.most_in_flight} requests are in flight; come back in {RETRY_AFTER_S} s."
            raise Refusal(503, "too_many_in_flight", words, retry_after_s=RETRY_AFTER_S)
        self._in_flight += 1
        self.counters.in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self.counters.in_flight.dec()

    async def body(self, request: Request) -> bytes:
        """The whole body, once it is sure that it may be read; refused before more than allowed of it is kept."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "not_json", "Send JSON with Content-Type: application/json.")
        most, told = self.settings.most_body_bytes, request.headers.get("content-length", "0")
        if not told.isdigit() or int(told) > most:
            raise self._too_long()
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise self._too_long()
        except TimeoutError:
            raise Refusal(408, "too_slow", "The request did not come in time.") from None
        except ClientDisconnect:
            raise Refusal(400, "gone", "The connection was closed before the request had come.") from None
        return bytes(body)

    def _too_long(self) -> Refusal:
        return Refusal(413, "body_too_long", f"The request is longer than {self.settings.most_body_bytes:,} bytes.")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _without_port(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host
