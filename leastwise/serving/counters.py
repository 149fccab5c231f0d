"""What an endpoint counts, in Prometheus' words, over all its workers. It keeps no text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name: where workers' counts lie
LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ENDED = "leastwise_requests_total"
DOLLARS = "leastwise_usd_total"


class Counters:
    """The counts of one worker; `exposed` gives those of all where they share a folder."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = own = CollectorRegistry()

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"leastwise_{name}", words, labels, registry=own)

        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"leastwise_{name}", words, labels, registry=own, multiprocess_mode="livesum")

        self._requests = counter("requests", "Requests by route and HTTP status.", "route", "status")
        self._seconds = Histogram(
            "leastwise_answer_seconds", "Seconds an answer took.", ("alias",), registry=own, buckets=LATENCY_S
        )
        self._tokens = counter("tokens", "Tokens of answers by kind.", "kind")
        self._usd = counter("usd", "Dollars of answers by alias.", "alias")
        self.in_flight = gauge("in_flight", "Requests in flight.")
        self._serving = gauge("serving", "Workers in which this version serves this alias.", "alias", "version")
        self._switches = counter("starts", "Versions started, by how it went.", "outcome")
        self.registry_failures = counter("registry_failures", "Times the registry could not be asked.")
        self._shadows = counter("shadows", "Shadow requests by how they went.", "outcome")
        self._kept = counter("kept", "Rows of the traffic log and traces, written or dropped.", "what", "outcome")

    def ended(self, route: str, status: int) -> None:
        """A request was answered or refused with this status."""
        self._requests.labels(route, str(status)).inc()

    def answered(self, alias: str, seconds: float, tokens: Sequence[int], usd: float) -> None:
        """A text was answered. `tokens`: input, cached and output."""
        self._seconds.labels(alias).observe(seconds)
        for kind, count in zip(("input", "cached", "output"), tokens, strict=True):
            if count:
                self._tokens.labels(kind).inc(count)
        if usd > 0:
            self._usd.labels(alias).inc(usd)

    def serves(self, alias: str, version: str, before: str) -> None:
        """From now on this version serves the alias (empty: none does), and no longer the one before."""
        if before:
            self._serving.labels(alias, before).set(0)
        if version:
            self._serving.labels(alias, version).set(1)

    def started(self, outcome: str) -> None:
        """A version was started, or failed to."""
        self._switches.labels(outcome).inc()

    def shadowed(self, outcome: str) -> None:
        """A shadow request was answered, failed or left out."""
        self._shadows.labels(outcome).inc()

    def kept(self, what: str, outcome: str, count: int = 1) -> None:
        """Rows or traces were written or dropped."""
        if count:
            self._kept.labels(what, outcome).inc(count)

    def exposed(self) -> bytes:
        """All counts as Prometheus reads them."""
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        folder = os.environ.get(SHARED_FOLDER)
        if not folder:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared, path=folder)
        return generate_latest(shared)


def forget_process(folder: Path, pid: int) -> None:
    """A worker ended: what it had in flight and served no longer counts; what it counted stays."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, path=str(folder))


def total(folder: Path, name: str, **labels: str) -> float:
    """The sum of a count over all workers and all other labels."""
    from prometheus_client import CollectorRegistry, multiprocess

    shared = CollectorRegistry()
    multiprocess.MultiProcessCollector(shared, path=str(folder))
    return sum(
        sample.value
        for metric in shared.collect()
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
