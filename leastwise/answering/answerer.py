"""What answers rows for a candidate, whatever it is made of: a model over HTTP, trained weights, a student, or one of
these behind a cascade, a guard or a cache.

It scores nothing. Who stands behind a candidate is put together in `leastwise.answering.answerers`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from leastwise.answering.distance import Distance
from leastwise.answering.retrieval import Index
from leastwise.answering.servers import GgufFiles, Safetensors
from leastwise.content import content_key
from leastwise.errors import CannotBeAsked
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.models.catalogue import Catalogue
from leastwise.money.capacity import Load, capacity, cold_requests, next_concurrency, requests_at
from leastwise.rows.question import JudgedRows
from leastwise.stores import storage
from leastwise.stores.answer_store import Answers
from leastwise.stores.caps import Purpose
from leastwise.stores.ledger import Meter
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price

if TYPE_CHECKING:
    import pandas as pd

    Send = Callable[[pd.DataFrame, int], list[float | None]]

log = logging.getLogger(__name__)

REPORTS = ("training.json", "report.json")  # of an adapter, of a student


class Outage(RuntimeError):  # noqa: N818 - says what happened
    """The infrastructure lost what a measurement cannot do without; evidence of nothing, a rerun measures it again."""


UNMEASURABLE = (CannotBeAsked, Outage)  # evidence of nothing: the reason is said, and a rerun measures it


@dataclass(frozen=True)
class Payer:
    """Which stage pays for calls, and what for."""

    stage: str
    purpose: Purpose


class Surroundings(Protocol):
    """What answering draws on: a climb (`Workspace`), or a winner's own files where it is served."""

    @property
    def use_case(self) -> UseCase:
        """What is asked for."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """The models it may draw on."""
        ...

    @property
    def answers(self) -> Answers:
        """What was asked before."""
        ...

    @property
    def home(self) -> Path:
        """Where logs and small facts go."""
        ...

    @property
    def gate(self) -> JudgedRows:
        """Rows that time and capacity are measured on; production measures nothing."""
        ...

    @property
    def near(self) -> Distance | None:
        """The distance to the examples; None where there are none, or nothing to embed them with."""
        ...

    def index(self, table: str, characters: int = 0) -> Index:
        """The index of the examples (`train`) or the documents; these in parts of so many characters, 0: whole."""
        ...

    def tokenizer(self, uri: str) -> Path:
        """The directory of a model's tokenizer."""
        ...

    def gguf(self, candidate: Candidate) -> GgufFiles:
        """A candidate's weights as llama.cpp takes them."""
        ...

    def safetensors(self, candidate: Candidate) -> Safetensors:
        """A candidate's weights as vLLM takes them."""
        ...

    def trained(self, candidate: Candidate) -> Path:
        """The directory of the weights that a stage made for it."""
        ...

    def meter(self, payer: Payer) -> Meter | None:
        """Who pays for its calls; None where nobody keeps count."""
        ...


class Answerer(Protocol):
    """Answers rows (columns id and text) and says what a request costs and takes."""

    @property
    def price(self) -> Price | None:
        """Dollars per million tokens; None where machines are paid instead."""
        ...

    @property
    def usd_worst_case(self) -> float:
        """The most one request may cost by its tokens."""
        ...

    @property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month."""
        ...

    @property
    def uncached(self) -> Answerer:
        """Who answers behind a response cache; itself where there is none."""
        ...

    @property
    def without_caches(self) -> Answerer:
        """Who answers with no cache in front, a provider's neither: as it was gated before it was cached."""
        ...

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows."""
        ...

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The very same asked once more, past what is stored."""
        ...

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Several answers to each row, sampled at this temperature; empty where it cannot be sampled."""
        ...

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """The latency over HTTP of every row in milliseconds; None where the infrastructure lost the request."""
        ...

    def figures(self) -> dict[str, float]:
        """What is reported of the answering itself."""
        ...


class PlainAnswerer:
    """What answerers have in common that stand behind nothing and cannot be sampled."""

    @property
    def uncached(self) -> Self:
        """Itself: there is no cache in front."""
        return self

    @property
    def without_caches(self) -> Self:
        """Itself, for the same reason."""
        return self

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """Nothing: it always answers the same way."""
        return []

    def figures(self) -> dict[str, float]:
        """Nothing beyond the answers."""
        return {}


def latencies_of(answers: list[Answer]) -> list[float | None]:
    """The latency each answer came with, milliseconds; None where it was lost, or never came over HTTP."""
    return [None if each.text is None else each.latency_ms for each in answers]


def measured_capacity(work: Surroundings, candidate: Candidate, send: Send, place: str = "") -> Load:
    """What one machine answers within the latency bound: gate rows in closed loops of rising concurrency.

    Measured once for a candidate and its bound and kept, so that a rerun decides alike. `send` asks rows at a
    concurrency and says what each took; `place`: where, if not here. Raises Outage where the endpoint answers too
    little to tell.
    """
    latency, gate = work.use_case.requirements.p95_latency_ms, work.gate
    bound_ms = latency.bound if latency else None
    where = place or work.catalogue.model(candidate.model).base_url or ""
    key = content_key("capacity", candidate.key, gate.set_hash, where)
    kept = work.home / "capacity" / f"{key}-{bound_ms}.json"
    if kept.exists():
        stored = json.loads(kept.read_text())
        return Load(stored["concurrency"], tuple(stored["latencies_ms"]))
    rows, at, loads = gate.rows, 0, list[Load]()
    while (concurrency := next_concurrency(loads, bound_ms)) is not None:
        cold, wanted = cold_requests(concurrency, len(rows)), requests_at(concurrency, len(rows))
        at = at if at + wanted <= len(rows) else 0
        loads.append(Load(concurrency, tuple(send(rows.iloc[at : at + wanted], concurrency)[cold:])))
        at += wanted
    if loads[0].is_lost:
        raise Outage(f"the capacity of {candidate.model} could not be measured: its endpoint lost too many requests")
    best = capacity(loads, bound_ms)
    log.info(
        f"capacity of one machine: {best.requests_per_s:.3g} requests a second at {best.concurrency} in flight, p95 "
        f"{best.p95_ms:,.0f} ms"
    )
    storage.write_bytes(kept, json.dumps(asdict(best)).encode())
    return best


def usd_per_retraining(work: Surroundings, trained: Path) -> float:
    """The compute of training these weights once, by the seconds it took and the price of the machines; dollars."""
    report = next((path for name in REPORTS if (path := trained / name).exists()), None)
    figures = json.loads(report.read_text()) if report else {}
    seconds = float(figures.get("seconds") or figures.get("train_seconds") or 0.0)
    return seconds / 3600 * work.use_case.training.machines_usd_per_hour
