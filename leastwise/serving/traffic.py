"""What is kept of answered requests: a row each in the traffic log, and of some a trace, both masked first.

A request waits for neither. Shadow answers have a log of their own: a request that came once must not count twice; and
what was asked to measure the endpoint has one, for it is no traffic.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from leastwise.metrics.answer import Answer
from leastwise.record.live.live_traces import LiveRequest, LiveTraces, new_trace_id
from leastwise.rows.personal_data import masked
from leastwise.rows.reading.request_log import COLUMNS
from leastwise.serving.counters import Counters
from leastwise.serving.settings import EndpointSettings
from leastwise.stores import storage
from leastwise.stores.tables.journal import Journal, Row

TEXTS = ("text", "answer")
_GIVEN_ID = re.compile(r"(?P<given>.+)(?P<own>-[0-9a-f]{8}(?:-\d+)?)")


@dataclass(frozen=True)
class Answered:
    """A request that was answered, or was not: then `answer.text` is None and `status` says how.

    `time`: unix seconds when it came; `latency_ms`: how long its answer took; `version` and `candidate`: who answered;
    `trace_id`: empty where it is not traced.
    """

    request_id: str
    text: str
    answer: Answer
    status: int
    time: float
    latency_ms: float
    version: str
    alias: str
    candidate: str
    trace_id: str = ""


class Traffic:
    """What one worker keeps of its requests. `mask`: the kinds of personal data that are kept of none, with those that
    a version it serves adds.
    """

    def __init__(
        self,
        name: str,
        mask: tuple[str, ...],
        settings: EndpointSettings,
        counters: Counters,
        may_be_measured: bool = False,
    ) -> None:
        self.settings, self.counters, self._mask = settings, counters, mask
        kept = settings.traffic_log and storage.resolve(settings.traffic_log, Path.cwd())
        make = partial(_journal, name, kept, settings.part_every_s, self._masked_row)
        self._requests = make("") if kept else None
        self._shadows = make("-shadow") if kept and settings.shadow_share else None
        self._loads = make("-load") if kept and may_be_measured else None
        written, dropped = partial(counters.kept, "traces", "written"), partial(counters.kept, "traces", "dropped")
        is_traced = settings.trace_rate > 0 and settings.most_traces_per_s > 0
        self._traces = LiveTraces(name, self._masked, written, dropped) if is_traced else None
        self._allowance = Allowance(settings.most_traces_per_s)
        self._told = dict.fromkeys(("rows.written", "rows.dropped"), 0)

    def mask_too(self, kinds: tuple[str, ...]) -> None:
        """Keep these kinds of personal data of no request either, from now on."""
        if not set(kinds) <= set(self._mask):
            self._mask = tuple(dict.fromkeys((*self._mask, *kinds)))

    def keep(self, done: Answered, share: float) -> Answered:
        """Keep a request; gives it back with the id of its trace, if it gets one. `share` in 0..1 samples."""
        is_sampled = share < self.settings.trace_rate
        if is_sampled and self._traces and self._traces.has_room and self._allowance.takes_one():
            done = replace(done, trace_id=new_trace_id())
            self._traces.add(_live_request(done, _masked_id(self._mask, done.request_id)))
        if self._requests:
            self._requests.add(_row(done))
        return done

    def keep_shadow(self, done: Answered) -> None:
        """Keep what the challenger would have said."""
        if self._shadows:
            self._shadows.add(_row(done))

    def keep_load(self, done: Answered) -> None:
        """Keep what was asked to measure the endpoint, which costs as much as keeping traffic."""
        if self._loads:
            self._loads.add(_row(done))

    def count(self) -> None:
        """Bring the counts of rows up to date."""
        journals = [each for each in (self._requests, self._shadows, self._loads) if each]
        now = {
            "rows.written": sum(each.rows for each in journals),
            "rows.dropped": sum(each.dropped for each in journals),
        }
        for name, count in now.items():
            what, outcome = name.split(".")
            self.counters.kept(what, outcome, count - self._told[name])
        self._told = now

    def close(self) -> None:
        """Write what is waiting."""
        for each in (self._requests, self._shadows, self._loads, self._traces):
            if each:
                each.close()
        self.count()

    def _masked(self, text: str) -> str:
        return masked(text, self._mask)

    def _masked_row(self, row: Row) -> Row:
        texts = {name: self._masked(text) for name in TEXTS if isinstance(text := row[name], str)}
        return row | texts | {"id": _masked_id(self._mask, str(row["id"]))}


class Allowance:
    """At most so many a second, a second's worth of them at once."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._left, self._at = max(per_s, 1.0), time.monotonic()

    def takes_one(self) -> bool:
        """Whether one more is allowed now; it then counts."""
        now = time.monotonic()
        self._left = min(max(self.per_s, 1.0), self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _journal(name: str, target: str, part_every_s: float, prepared: Callable[[Row], Row], suffix: str) -> Journal:
    folder = storage.home() / "endpoint" / f"{name}{suffix}"
    return Journal(folder, posixpath.join(target, f"{name}{suffix}"), COLUMNS, part_every_s, prepared)


def _row(done: Answered) -> Row:
    answer = done.answer
    return {
        "time": done.time,
        "id": done.request_id,
        "text": done.text,
        "answer": answer.text,
        "predicted_label": answer.label,
        "status": done.status,
        "confidence": answer.confidence,
        "latency_ms": done.latency_ms,
        "input_tokens": answer.input_tokens,
        "cached_tokens": answer.cached_tokens,
        "output_tokens": answer.output_tokens,
        "usd": answer.usd,
        "version": done.version,
        "alias": done.alias,
        "candidate": done.candidate,
        "trace_id": done.trace_id or None,
    }


def _live_request(done: Answered, request_id: str) -> LiveRequest:
    answer = done.answer
    return LiveRequest(
        trace_id=done.trace_id,
        request_id=request_id,
        time=done.time,
        latency_ms=done.latency_ms,
        version=done.version,
        alias=done.alias,
        candidate=done.candidate,
        text=done.text,
        answer=answer.text,
        input_tokens=answer.input_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        usd=answer.usd,
    )


def _masked_id(mask: tuple[str, ...], request_id: str) -> str:
    """The id with what its caller gave masked, and what makes it one's own (see `serving.web.routes`) as it is."""
    parts = _GIVEN_ID.fullmatch(request_id)
    return masked(parts["given"], mask) + parts["own"] if parts else request_id
