"""JSON to and from one host: tried again where that is no second purchase, refused in words, sent on to nobody else.

What is asked for is said in `leastwise.endpoints.tuning.fireworks`: everything there is named by us, so that asking
twice makes nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leastwise.endpoints.bodies import body_of
from leastwise.endpoints.failure import ELSEWHERE, remedy_of
from leastwise.endpoints.received import error_in
from leastwise.endpoints.tuning.words import NO_ROWS, Rows
from leastwise.errors import BadInput

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0  # of one request, an upload too
MOST_TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
PASSING = frozenset({408, 425, 429})
TOLD = frozenset({404, 405, 409, 501})  # which say something of what is asked for, and are for the caller to read
NO_SUCH = "no such account or model there, or no leave for it; check training.managed.account and base"


@dataclass(frozen=True)
class Told:
    """What came back: a status of 2xx, or one of TOLD."""

    status: int
    body: Mapping[str, object]

    @property
    def is_there(self) -> bool:
        """Whether what was asked for is there, or was done."""
        return self.status < 400

    @property
    def message(self) -> str:
        """What the host says in words; unsafe to show (see `Wire.said`)."""
        told = error_in(self.body) or self.body
        return str(told.get("message") or "")


@dataclass(frozen=True)
class _Asked:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    file: Mapping[str, tuple[str, bytes, str]] | None = None
    is_waited: bool = True


@dataclass(frozen=True)
class Wire:
    """One host, its client, and the rows that no message may repeat. `first_pause_s` grows with every try."""

    client: httpx.Client
    host: str
    rows: Rows = NO_ROWS
    first_pause_s: float = FIRST_PAUSE_S

    def get(self, path: str, **query: str) -> Told:
        """Look something up."""
        return self._patiently(_Asked("GET", path, query))

    def post(self, path: str, body: Mapping[str, object], *, is_waited: bool = True, **query: str) -> Told:
        """Ask for something to be made or done; without `is_waited` a 429 is an answer, for it does not pass."""
        return self._patiently(_Asked("POST", path, query, body, is_waited=is_waited))

    def delete(self, path: str) -> Told:
        """Take something away."""
        return self._patiently(_Asked("DELETE", path))

    def upload(self, path: str, name: str, file: bytes) -> Told:
        """Put a file there."""
        return self._patiently(_Asked("POST", path, file={"file": (name, file, "application/jsonl")}))

    def said(self, message: str) -> str:
        """A message of the host as it may be shown."""
        return self.rows.said(message)

    def refused(self, told: Told, what: str) -> BadInput:
        """What to raise where a person must put something right first."""
        remedy = NO_SUCH if told.status == 404 else remedy_of(told.status, told.message)
        said = self.said(told.message) or "no words"
        return BadInput(f"{self.host}: {what}: {remedy or 'it was refused'} ({told.status}: {said})")

    def _patiently(self, asked: _Asked) -> Told:
        pause_s, why = self.first_pause_s, ""
        for left in reversed(range(MOST_TRIES)):
            answered = self._once(asked)
            if isinstance(answered, Told):
                return answered
            why = answered
            if left:
                time.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        raise ConnectionError(f"{self.host}: {asked.path}: no answer in {MOST_TRIES} tries ({why}); run again")

    def _once(self, asked: _Asked) -> Told | str:
        """An answer, or why there is none that counts."""
        import httpx

        try:
            response = self.client.request(
                asked.method, asked.path, params=dict(asked.query), json=asked.body, files=asked.file
            )
        except httpx.TransportError as error:
            return self.said(f"{type(error).__name__}: {error}")
        if response.is_redirect:
            raise BadInput(f"{self.host}: {ELSEWHERE}")
        received = body_of(response.content)
        fields = {str(name): value for name, value in received.items()} if isinstance(received, Mapping) else {}
        told = Told(response.status_code, fields)
        if told.is_there or told.status in TOLD or (told.status == 429 and not asked.is_waited):
            return told
        if told.status in PASSING or told.status >= 500:
            return f"{told.status}: {self.said(told.message)}"
        raise self.refused(told, asked.path)
