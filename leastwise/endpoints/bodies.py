"""The JSON of a body as it was received, out of whatever gateways put around it: compression that nobody announced,
a stream nobody asked for, an array, an envelope of their own.

It knows no answer and no count (see `leastwise.endpoints.received`).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping

GZIP = b"\x1f\x8b"
HOLDERS = ("data", "result", "response", "message")  # what an answer is put into
ANSWERS = ("choices", "content", "output", "candidates")


def body_of(text: str | bytes | None) -> object:
    """The JSON of a body; None where it is none."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text or b""
    try:
        raw = gzip.decompress(raw) if raw.startswith(GZIP) else raw
        return _unwrapped(json.loads(raw)) if raw else None
    except (ValueError, RecursionError, OSError, EOFError, zlib.error):
        return _of_stream(raw)


def is_page(text: bytes) -> bool:
    """Whether a body is a page for people."""
    start = text[:200].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<title"))


def _unwrapped(body: object) -> object:
    if isinstance(body, list) and len(body) == 1:
        return _unwrapped(body[0])
    if isinstance(body, Mapping) and not any(name in body for name in (*ANSWERS, "error")):
        held = (body.get(name) for name in HOLDERS)
        return next((each for each in held if isinstance(each, Mapping) and any(n in each for n in ANSWERS)), body)
    return body


def _of_stream(raw: bytes) -> object:
    """What the events of a stream of OpenAI's interface come to; None where it is none, or is cut off."""
    lines = raw.decode(errors="replace").splitlines()
    events = [event for line in lines if line.startswith("data:") and (event := _event(line[5:].strip()))]
    if failed := next((event for event in events if event.get("error")), None):
        return failed
    message: dict[str, str] = {"content": "", "arguments": ""}
    reason: object = None
    usage: object = None
    for event in events:
        usage = event.get("usage") or usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, Mapping):
            reason = choice.get("finish_reason") or reason
            _add(message, choice.get("delta"))
    if reason is None:
        return None
    said: dict[str, object] = {"content": message["content"] or None}
    if message["arguments"]:
        said["tool_calls"] = [{"function": {"arguments": message["arguments"]}}]
    return {"choices": [{"message": said, "finish_reason": reason}], "usage": usage}


def _event(text: str) -> Mapping[object, object] | None:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, Mapping) else None


def _add(message: dict[str, str], delta: object) -> None:
    if not isinstance(delta, Mapping):
        return
    if isinstance(delta.get("content"), str):
        message["content"] += delta["content"]
    calls = delta.get("tool_calls")
    function = calls[0].get("function") if isinstance(calls, list) and calls and isinstance(calls[0], Mapping) else None
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
        message["arguments"] += function["arguments"]
