"""Asks a student behind MLflow's model server over HTTP. It meters and stores nothing: an own server costs no call."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leastwise.endpoints.request import Endpoint

SHOWN_CHARACTERS = 2_000


@dataclass(frozen=True)
class StudentReply:
    """Predictions in the order of the texts, and the wall time of the one HTTP request that brought them."""

    predictions: tuple[Any, ...]  # JSON, of the shape the model that is served gives
    latency_ms: float


def ask_student(
    endpoint: Endpoint, texts: Sequence[str], *, column: str | None = None, timeout_s: float = 60.0
) -> StudentReply:
    """One `/invocations` request for all `texts`: as a plain list, or as a table with one `column`.

    Raises RuntimeError with the server's message if it refuses, urllib.error.URLError if it cannot be reached.
    """
    table = {"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}}
    body = json.dumps({"inputs": list(texts)} if column is None else table).encode()
    request = urllib.request.Request(  # noqa: S310 (our own loopback address)
        f"{endpoint.base_url}/invocations", body, {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            predictions = json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:SHOWN_CHARACTERS]
        raise RuntimeError(f"the student at {endpoint.base_url} answered {error.code}: {reason}") from error
    return StudentReply(tuple(predictions), (time.perf_counter() - started) * 1000)
