"""What the rows of an evaluation add up to, as figures of its run. It judges nothing.

What a request costs and takes is a figure of the traffic alone where that is a sample of its own: the rows beside it
are answered past the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leastwise import metrics
from leastwise.ladder import scope_figures
from leastwise.ladder.measured import EXAM, TRAFFIC, ExampleRow
from leastwise.use_case import UseCase


def totals_of(
    use_case: UseCase, rows: Sequence[ExampleRow], timed_ms: Sequence[float], unpriced: int
) -> dict[str, float]:
    """Every total; `timed_ms`: the latencies that were tested, `unpriced`: requests whose usage is not known."""
    asked = [row for row in rows if row["set"] != EXAM]  # general tasks are no requests
    of_traffic = [row for row in asked if row["set"] == TRAFFIC]
    requests = of_traffic or asked
    speed = _throughput(use_case, of_traffic or rows, timed_ms)
    figures = _macro_f1(use_case, rows) | scope_figures.figures(use_case.task, rows)
    unknown = {"calls.usage_unknown": float(unpriced)} if unpriced else {}
    return _sums(requests) | _calls(asked) | speed | figures | unknown


def _macro_f1(use_case: UseCase, rows: Sequence[ExampleRow]) -> dict[str, float]:
    """Macro-F1 over the gate rows, reported and not judged; none where no row has an answer."""
    answered = [row for row in rows if row["set"] == "gate" and row["answer"] is not None]
    task = use_case.task
    if not answered or task.kind != "classification":
        return {}
    labels = [metrics.normalize(task, str(row["answer"])) for row in answered]
    return {"macro_f1": metrics.macro_f1(labels, [str(row["expected"]) for row in answered])}


def _sums(requests: Sequence[ExampleRow]) -> dict[str, float]:
    """Tokens, and dollars a request."""
    return {
        "tokens.input": float(sum(row["input_tokens"] for row in requests)),
        "tokens.cached": float(sum(row["cached_tokens"] for row in requests)),
        "tokens.output": float(sum(row["output_tokens"] for row in requests)),
        "usd.per_request": sum(row["usd"] for row in requests) / max(len(requests), 1),
    }


def _calls(asked: Sequence[ExampleRow]) -> dict[str, float]:
    reused = sum(row["from_store"] for row in asked)
    return {"calls.paid": float(sum(row["error"] is None for row in asked) - reused), "calls.cached": float(reused)}


def _throughput(use_case: UseCase, rows: Sequence[ExampleRow], timed_ms: Sequence[float]) -> dict[str, float]:
    """Requests a second at the traffic's concurrency, by Little's law from the mean latency; none where nothing was
    timed.
    """
    timed = timed_ms or [row["latency_ms"] for row in rows if row["latency_ms"] is not None]
    mean_ms = float(np.mean(timed)) if timed else 0.0
    concurrency = use_case.traffic.concurrency
    return {"requests_per_s": 1000 * concurrency / mean_ms} if mean_ms > 0 else {}
