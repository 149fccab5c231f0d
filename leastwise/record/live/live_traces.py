"""Answered requests as MLflow traces in the experiment `NAME-live`, written by a thread of its own, so that people can
attach feedback by the id that went out with the answer.

A request never waits for it: the queue is bounded, and what does not fit is not traced. It masks nothing; texts come
as they may be kept.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from leastwise.record.client import connect, experiment_id
from leastwise.redaction import redacted
from leastwise.text_forms import storable

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

log = logging.getLogger(__name__)

SUFFIX = "-live"
MOST_WAITING, MOST_AT_ONCE, TRIES = 1_000, 50, 3
CLOSE_S = 15.0
PREVIEW_CHARACTERS = 1_000


@dataclass(frozen=True)
class LiveRequest:
    """One answered request. `usd`: dollars; `time`: unix seconds when it came; `answer` is None where it failed."""

    trace_id: str
    request_id: str
    time: float
    latency_ms: float
    version: str
    alias: str
    candidate: str
    text: str
    answer: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float


def new_trace_id() -> str:
    """An id that no other request has."""
    return f"tr-{uuid.uuid4().hex}"


class LiveTraces:
    """The traces of one process of a service; `written` and `dropped` are told each time some were."""

    def __init__(
        self, name: str, prepared: Callable[[str], str], written: Callable[[int], None], dropped: Callable[[int], None]
    ) -> None:
        self.name, self._prepared, self._written, self._dropped = name, prepared, written, dropped
        self._waiting: queue.Queue[LiveRequest | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._keep, name="traces", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """Whether a request that is added now will be written; asked and answered by one thread."""
        return not self._waiting.full()

    def add(self, request: LiveRequest) -> None:
        """Take a request; it waits for nothing."""
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            self._dropped(1)

    def close(self) -> None:
        """Write what is waiting, for as long as CLOSE_S."""
        try:
            self._waiting.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    def _keep(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
                each = self._waiting.get()
                if each is None:
                    self._write(batch)
                    return
                batch.append(each)
            self._write(batch)

    def _write(self, batch: list[LiveRequest]) -> None:
        """A batch, tried again where MLflow is away; an id makes a second writing of a trace change nothing."""
        for attempt in range(TRIES):
            try:
                _write_traces(self.name + SUFFIX, batch, self._prepared)
            except Exception as error:
                log.info(f"{len(batch)} traces could not be written: {redacted(str(error))[:200]}")
                time.sleep(0.5 * 2**attempt)
            else:
                self._written(len(batch))
                return
        self._dropped(len(batch))


def _write_traces(experiment: str, batch: list[LiveRequest], prepared: Callable[[str], str]) -> None:
    from mlflow.tracing.client import TracingClient

    client = connect()
    where, traces = experiment_id(client, experiment), TracingClient(client.tracking_uri)
    spans: list[Span] = []
    for request in batch:
        text, answer = (storable(prepared(each)) for each in (request.text, request.answer or ""))
        model_id = _model_id(experiment.removesuffix(SUFFIX), request.version)
        traces.start_trace(_info(request, where, text, answer, model_id))
        spans.append(_span(request, text, answer))
    traces.log_spans(where, spans)


@lru_cache(maxsize=64)
def _model_id(name: str, version: str) -> str:
    """The logged model of a version, empty where it has none or somebody deleted it: its requests are traced all the
    same.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(connect().get_model_version(name, version).model_id or "")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _info(request: LiveRequest, where: str, text: str, answer: str, model_id: str) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    usage, cost = _usage(request)
    metadata = {"mlflow.trace.tokenUsage": usage, "mlflow.trace.cost": cost, "mlflow.trace.sizeStats": "{}"}
    metadata |= {"mlflow.modelId": model_id} if model_id else {}
    tags = {
        "mlflow.traceName": "request",
        "mlflow.trace.spansLocation": "TRACKING_STORE",
        "leastwise.version": request.version,
        "leastwise.alias": request.alias,
        "leastwise.candidate": request.candidate,
    }
    return TraceInfo(
        trace_id=request.trace_id,
        trace_location=TraceLocation.from_experiment_id(where),
        request_time=int(request.time * 1000),
        execution_duration=round(request.latency_ms),
        state=TraceState.OK if request.answer is not None else TraceState.ERROR,
        request_preview=text[:PREVIEW_CHARACTERS],
        response_preview=answer[:PREVIEW_CHARACTERS],
        client_request_id=request.request_id,
        trace_metadata=metadata,
        tags=tags,
    )


def _span(request: LiveRequest, text: str, answer: str) -> Span:
    from mlflow.entities import Span
    from mlflow.tracing.utils import build_otel_context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status, StatusCode

    digits, started_ns = request.trace_id.removeprefix("tr-"), int(request.time * 1e9)
    usage, cost = _usage(request)
    attributes = {
        "mlflow.traceRequestId": json.dumps(request.trace_id),
        "mlflow.spanType": json.dumps("CHAT_MODEL"),
        "mlflow.spanInputs": json.dumps({"text": text}, ensure_ascii=False),
        "mlflow.spanOutputs": json.dumps(answer, ensure_ascii=False),
        "mlflow.chat.tokenUsage": usage,
        "mlflow.llm.cost": cost,
    }
    return Span(
        ReadableSpan(
            name="request",
            context=build_otel_context(int(digits, 16), int(digits[:16], 16)),
            parent=None,
            start_time=started_ns,
            end_time=started_ns + int(request.latency_ms * 1e6),
            attributes=attributes,
            status=Status(StatusCode.OK if request.answer is not None else StatusCode.ERROR),
        )
    )


def _usage(request: LiveRequest) -> tuple[str, str]:
    """Tokens and dollars as MLflow writes them, JSON each."""
    counted = {"input_tokens": request.input_tokens, "output_tokens": request.output_tokens}
    counted["total_tokens"] = sum(counted.values())
    if request.cached_tokens:
        counted["cache_read_input_tokens"] = request.cached_tokens
    return json.dumps(counted), json.dumps({"total_cost": request.usd, "input_cost": request.usd, "output_cost": 0.0})
