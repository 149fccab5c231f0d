"""An answered example as a trace of MLflow: what was asked and said, its scores, what it took and cost.

Traces are made after the fact from the table of examples, in bulk; no answer waits for one. Their ids are made of run
and row, so that writing them twice changes nothing. Which runs have some is said in `showing.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from leastwise.ladder.measured import TRAFFIC
from leastwise.text_forms import storable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment, AssessmentSource, Span, TraceInfo

Row = Mapping[str, object]
"""One row of the table of examples, by the names of its columns."""

MOST = 1000  # examples of a run that are shown, the first in the order in which they were asked
SHOWN_CHARACTERS = 1000  # of request and response in the list of traces; the trace itself has them whole
AT_ONCE = 25  # traces whose spans are sent in one request
LINKED_AT_ONCE = 100  # MLflow refuses more
SENDERS = 4  # requests in flight to a server; a database takes one writer
LABEL, ROW, SET, FROM_STORE, UNIT = "label", "leastwise.row", "leastwise.set", "leastwise.from_store", "leastwise.unit"


@dataclass(frozen=True)
class Origin:
    """What the traces of a run share. `judge`: the model whose grade is the quality, empty where it is a metric.

    `is_pass_fail`: an answer is right or wrong, so that its quality is shown as a truth value and not as a number.
    `prompt`: name and version of the registered prompt.
    """

    experiment_id: str
    run_id: str
    started_ms: int
    stage: str
    model_id: str = ""
    model: str = ""
    judge: str = ""
    is_pass_fail: bool = True
    prompt: tuple[str, str] | None = None


@dataclass(frozen=True)
class Example:
    """One row of the table of examples, as a trace. `time`: which of the rows with this id and set it is."""

    origin: Origin
    row: Row
    time: int
    requested_ms: int

    def _hex(self, digits: int, what: str) -> str:
        named = (self.origin.run_id, self.row["set"], self.row["id"], self.time, what)
        return hashlib.sha256("\x1f".join(map(str, named)).encode()).hexdigest()[:digits]

    @property
    def trace_id(self) -> str:
        """The same for the same row of the same run, whenever it is made."""
        return f"tr-{self._hex(32, 'trace')}"

    @property
    def _latency_ms(self) -> float | None:
        took = self.row.get("latency_ms")
        return float(took) if isinstance(took, int | float) else None

    @cached_property
    def _usage(self) -> str:
        read, said, cached = (self._count(f"{name}_tokens") for name in ("input", "output", "cached"))
        usage = {"input_tokens": read, "output_tokens": said, "total_tokens": read + said}
        return json.dumps(usage | ({"cache_read_input_tokens": cached} if cached else {}))

    @cached_property
    def _cost(self) -> str:
        usd = self.row.get("usd")
        return json.dumps({"total_cost": float(usd) if isinstance(usd, int | float) else 0.0})

    def _count(self, name: str) -> int:
        value = self.row.get(name)  # tables of before tokens were kept a row have none
        return int(value) if isinstance(value, int | float) else 0

    @property
    def _prompts(self) -> str:
        name, version = self.origin.prompt or ("", "")
        return json.dumps([{"name": name, "version": version}]) if name else ""

    def info(self) -> TraceInfo:
        """The trace with its scores, but for its span."""
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        row, took = self.row, self._latency_ms
        metadata = {
            "mlflow.sourceRun": self.origin.run_id,
            "mlflow.modelId": self.origin.model_id,
            "mlflow.trace.sizeStats": "{}",
            "mlflow.trace.tokenUsage": self._usage,
            "mlflow.trace.cost": self._cost,
        }
        tags = {
            "mlflow.traceName": self.origin.stage,
            "mlflow.trace.spansLocation": "TRACKING_STORE",
            "mlflow.linkedPrompts": self._prompts,
            ROW: str(row["id"])[:250],
            SET: str(row["set"]),
            FROM_STORE: str(bool(row.get("from_store"))).lower(),
            UNIT: str(row.get("unit") or "")[:250],
        }
        return TraceInfo(
            trace_id=self.trace_id,
            trace_location=TraceLocation.from_experiment_id(self.origin.experiment_id),
            request_time=self.requested_ms,
            execution_duration=None if took is None else round(took),
            state=TraceState.ERROR if row.get("error") else TraceState.OK,
            request_preview=storable(str(row["input"]))[:SHOWN_CHARACTERS],
            response_preview=_text(row.get("answer"))[:SHOWN_CHARACTERS],
            client_request_id=str(row["id"])[:50],
            trace_metadata={name: value for name, value in metadata.items() if value},
            tags={name: value for name, value in tags.items() if value},
            assessments=list(self._assessments()),
        )

    def _assessments(self) -> Iterator[Assessment]:
        from mlflow.entities import AssessmentSource, Expectation, Feedback

        row, gate = self.row, AssessmentSource(source_type="CODE", source_id="leastwise.gate")
        for name, value, source in self._scores(gate):
            wrong = isinstance(row.get("expected"), str) and value is False
            why = f"expected {row['expected']!r}" if wrong and name != "adherence" else None
            yield self._named(Feedback(name=name, value=value, rationale=why, source=source))
        if isinstance(row.get("expected"), str):
            yield self._named(Expectation(name=LABEL, value=row["expected"], source=gate))

    def _named(self, assessment: Assessment) -> Assessment:
        assessment.trace_id, assessment.metadata = self.trace_id, {"mlflow.assessment.sourceRunId": self.origin.run_id}
        assessment.assessment_id = f"a-{self._hex(32, assessment.name)}"
        assessment.create_time_ms = assessment.last_update_time_ms = self.requested_ms
        return assessment

    def _scores(self, gate: AssessmentSource) -> Iterator[tuple[str, bool | float, AssessmentSource]]:
        """Each score by its name; rows beside the gate's have their requirement's, so that the mean of `quality` in
        MLflow's pages is that of the gate.
        """
        from mlflow.entities import AssessmentSource

        row, beside = self.row, self.row["set"] not in ("gate", TRAFFIC)
        judge = AssessmentSource(source_type="LLM_JUDGE", source_id=self.origin.judge or "judge")
        score, adherence, grade = (row.get(name) for name in ("score", "adherence", "judged"))
        if isinstance(score, int | float) and row["set"] != TRAFFIC:  # its score is its adherence
            is_pass_fail = score in (0, 1) and (self.origin.is_pass_fail or row["set"] == "ood_decline")
            value = bool(score) if is_pass_fail else float(score)
            yield str(row["set"]) if beside else "quality", value, judge if self.origin.judge and not beside else gate
        if isinstance(adherence, int | float) and not beside:
            yield "adherence", bool(adherence) if adherence in (0, 1) else float(adherence), gate
        if isinstance(grade, int | float) and not self.origin.judge:
            yield "judged", float(grade), judge

    def span(self) -> Span:
        """The one span of the trace: the whole request."""
        from mlflow.entities import Span
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        row, error = self.row, self.row.get("error")
        attributes = {
            "mlflow.traceRequestId": json.dumps(self.trace_id),
            "mlflow.spanType": json.dumps("CHAT_MODEL"),
            "mlflow.spanInputs": json.dumps({"text": row["input"]}),
            "mlflow.spanOutputs": json.dumps(row.get("answer")),
            "mlflow.chat.tokenUsage": self._usage,
            "mlflow.llm.cost": self._cost,
            "mlflow.llm.model": json.dumps(self.origin.model),
        }
        numbers = int(self._hex(32, "trace"), 16), int(self._hex(16, "span"), 16)
        return Span(
            ReadableSpan(
                name=self.origin.stage,
                context=SpanContext(*numbers, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)),
                parent=None,
                start_time=self.requested_ms * 1_000_000,
                end_time=int((self.requested_ms + (self._latency_ms or 0.0)) * 1_000_000),
                attributes=attributes,
                status=Status(StatusCode.ERROR, str(error)) if error else Status(StatusCode.OK),
            )
        )


def examples_of(origin: Origin, rows: Sequence[Row]) -> list[Example]:
    """The first rows of a table of examples as traces; in every list of MLflow, newest first, in the gate's order.

    Requests of traffic without expected answers come last: of many, the rows that quality was judged on are shown.
    """
    rows = sorted(rows, key=lambda row: row["set"] == TRAFFIC)
    shown, seen, examples = rows[:MOST], Counter[tuple[object, object]](), list[Example]()
    for at, row in enumerate(shown):
        named = row["set"], row["id"]
        examples.append(Example(origin, row, seen[named], origin.started_ms + len(shown) - at))
        seen[named] += 1
    return examples


def write(client: MlflowClient, examples: Sequence[Example], go_on: Callable[[], None] = lambda: None) -> None:
    """Write traces, over those that are there; `go_on` is called between them and may wait."""
    from mlflow.tracing.client import TracingClient

    tracing = TracingClient(client.tracking_uri)
    senders = SENDERS if client.tracking_uri.startswith("http") else 1

    def start(example: Example) -> None:
        go_on()
        tracing.start_trace(example.info())

    with ThreadPoolExecutor(senders) as pool:
        for at in range(0, len(examples), AT_ONCE):
            part = examples[at : at + AT_ONCE]
            list(pool.map(start, part))
            go_on()
            tracing.log_spans(part[0].origin.experiment_id, [each.span() for each in part])


def link(client: MlflowClient, examples: Sequence[Example], run_id: str) -> None:
    """Show the traces of these examples at another run too; doing it twice changes nothing."""
    for at in range(0, len(examples), LINKED_AT_ONCE):
        client.link_traces_to_run([each.trace_id for each in examples[at : at + LINKED_AT_ONCE]], run_id)


def _text(answer: object) -> str:
    return storable(answer) if isinstance(answer, str) else ""
