"""Measuring a candidate: gate rows in seeded order, in looks, until the verdict is decided or the rows run out.

It answers nothing itself (see `tasks.answering`) and it does not judge: the verdict is computed from what was logged.
Rows that share a unit are not clustered yet (`data.unit_by` is refused), and population `this_set` uses the full set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from leastwise import metrics, sequential
from leastwise.candidate import Candidate
from leastwise.gate import MAX_LOST_SHARE, SHARES, Evaluation, Measurement
from leastwise.use_case import LADDER, UseCase
from tasks.answering import Answer

if TYPE_CHECKING:
    import pandas as pd

LOOK = 25
MAIN = ("quality", "adherence", "p95_latency_ms", "usd_per_1k_requests")


class Answerer(Protocol):
    """What answers rows for a candidate."""

    usd_worst_case: float
    fixed_usd_per_request: float

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, in the order of the rows."""
        ...

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """Latencies over HTTP in milliseconds, for these rows or the first of them."""
        ...


@dataclass(frozen=True)
class Alphas:
    """Error probabilities of one candidate's tests."""

    to_pass: float
    to_fail: float


@dataclass
class Progress:
    """How far an evaluation is; handed to whoever shows it."""

    stage: str
    rows: int
    of: int
    usd: float
    estimates: dict[str, float]


@dataclass
class Measured:
    """An evaluation, the totals behind it and one record a row."""

    evaluation: Evaluation
    totals: dict[str, float]
    rows: list[dict[str, object]] = field(default_factory=list)
    narrowing: list[dict[str, float | str]] = field(default_factory=list)


def candidates_on_gate_set(use_case: UseCase) -> int:
    """K: every candidate a climb may judge on its gate set; fixed before the first look."""
    tries = 2 * len(use_case.models.candidates)
    stages = LADDER[: LADDER.index(use_case.last_stage) + 1]
    reference = 1 if use_case.reference == "stop" else 0
    return reference + sum(tries if stage in ("prompt", "rag") else 1 for stage in stages)


def alphas(use_case: UseCase, drawn: float) -> Alphas:
    """alpha/K to pass; to fail, alpha split over the requirements (see the guarantee in `leastwise.gate`)."""
    return Alphas(drawn / candidates_on_gate_set(use_case), use_case.alpha / len(use_case.requirements.bounds))


def gate_hash(table_hash: str, rows: int) -> str:
    """Names a gate set and its order."""
    return hashlib.sha256(f"{table_hash}:{rows}:{LOOK}".encode()).hexdigest()[:16]


def seeded(frame: pd.DataFrame, seed_hex: str) -> pd.DataFrame:
    """The rows in the order they are measured in: fixed by the content of the gate set, not by arrival."""
    order = np.random.default_rng(int(seed_hex[:12], 16)).permutation(len(frame))
    return frame.iloc[order].reset_index(drop=True)


class KnownCost:
    """A cost that does not depend on the request (machines by the month): nothing is sampled, so it is decided at once."""

    n = 0

    def __init__(self, usd: float, bound: float, margin: float) -> None:
        self.estimate = self.lower = self.upper = usd
        self.outcome = "pass" if usd <= bound + margin else "fail"


class Tests:
    """The sequential tests of one candidate, one a requirement."""

    __test__ = False

    def __init__(self, use_case: UseCase, alpha: Alphas, answerer: Answerer, size: int) -> None:
        self.use_case = use_case
        self.alpha = alpha
        self.lost = 0
        self.size = size
        self.by_name = {name: self._start(name, answerer) for name in use_case.requirements.bounds}

    def _start(self, name: str, answerer: Answerer):
        wanted = self.use_case.requirements.bounds[name]  # type: ignore[index]
        both = {"alpha_pass": self.alpha.to_pass, "alpha_fail": self.alpha.to_fail}
        if name == "p95_latency_ms":
            return sequential.QuantileTest(wanted.bound, wanted.margin, **both)
        if name == "usd_per_1k_requests":
            worst, fixed = answerer.usd_worst_case, answerer.fixed_usd_per_request
            if worst == 0:
                return KnownCost(1000 * fixed, wanted.bound, wanted.margin)
            return sequential.CostTest(wanted.bound, wanted.margin, 1000 * worst, fixed_usd=1000 * fixed, **both)
        if self.use_case.data.population == "this_set" and name in ("quality", "adherence"):
            return sequential.ClosedSetTest(self.size, wanted.bound, wanted.margin, **both)
        return sequential.MeanTest(wanted.bound, wanted.margin, better="higher", **both)

    def add(self, name: str, values: list[float], lost: int = 0) -> None:
        """Add observations of one requirement, if it is asked for; a decided test keeps its decision."""
        test = self.by_name.get(name)
        if test is None or isinstance(test, KnownCost):
            return
        if values:
            test.add(values)
        if lost:
            test.add_lost(lost)

    def open(self, *names: str) -> bool:
        """Whether one of these requirements is still undecided and none at all has failed."""
        if self.failed:
            return False
        return any(self.by_name[n].outcome == "undecided" for n in names if n in self.by_name)

    @property
    def failed(self) -> bool:
        """Whether what the model answers has failed a requirement: nothing more needs to be known of it then.

        A failure of cost or latency alone decides the verdict too, but whether quality holds decides what comes next:
        the parent, the teacher and whether a cache is worth having. It is measured to its end.
        """
        return any(test.outcome == "fail" for name, test in self.by_name.items() if name in SHARES)

    def measurements(self) -> dict[str, Measurement]:
        """Every test that has seen an example, as it is logged."""
        return {name: self._measurement(name, test) for name, test in self.by_name.items() if test.n or isinstance(test, KnownCost)}

    def _measurement(self, name: str, test: sequential.MeanTest) -> Measurement:
        wanted = self.use_case.requirements.bounds[name]  # type: ignore[index]
        return Measurement(
            name=name,
            estimate=test.estimate,
            lower=test.lower,
            upper=test.upper,
            n=test.n,
            lost=self.lost if name in SHARES else 0,
            bound=wanted.bound,
            margin=wanted.margin,
            alpha_pass=self.alpha.to_pass,
            alpha_fail=self.alpha.to_fail,
        )


def evaluate(
    use_case: UseCase,
    candidate: Candidate,
    answerer: Answerer,
    rows: pd.DataFrame,
    alpha: Alphas,
    set_hash: str,
    *,
    out_of_scope: pd.DataFrame | None = None,
    shifted: pd.DataFrame | None = None,
    on_look: Callable[[Progress], None] | None = None,
) -> Measured:
    """Measure a candidate on rows (already in the order to use) until its verdict is decided or they run out."""
    tests = Tests(use_case, alpha, answerer, len(rows))
    done = Measured(Evaluation(stage=candidate.stage, candidate=candidate.key, gate_hash=set_hash, measurements={}), {})
    error = _gate(tests, done, answerer, rows, on_look)
    if error is None and not tests.failed:
        _beyond(tests, done, answerer, "ood_decline", out_of_scope)
        _beyond(tests, done, answerer, "shift_quality", shifted)
    spent = sum(float(r["usd_paid"]) for r in done.rows)  # type: ignore[arg-type]
    done.evaluation = done.evaluation.model_copy(
        update={"measurements": tests.measurements(), "usd_spent": spent, "error": error}
    )
    done.totals = _totals(done.rows)
    return done


def measure_all(
    use_case: UseCase, answerer: Answerer, rows: pd.DataFrame, on_look: Callable[[Progress], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Plain quality and adherence over all rows, each with its n: the figure that is reported, not a gate."""
    scores: list[metrics.Score] = []
    size = 4 * LOOK
    for start in range(0, len(rows), size):
        part = rows.iloc[start : start + size]
        answers = answerer.answer(part)
        scores += [metrics.exact_label(use_case.task, a.text or "", want) for a, want in zip(answers, part["label"], strict=True)]
        if on_look:
            so_far = sum(s.quality for s in scores) / len(scores)
            on_look(Progress("confirm on test", len(scores), len(rows), 0.0, {"quality": so_far}))
    n = len(scores)
    return {"quality": (sum(s.quality for s in scores) / n, n), "adherence": (sum(s.adherence for s in scores) / n, n)}


def _gate(
    tests: Tests, done: Measured, answerer: Answerer, rows: pd.DataFrame, on_look: Callable[[Progress], None] | None
) -> str | None:
    """Look after look over the gate rows; gives back why it had to stop, if the infrastructure failed."""
    for look in looks(rows):
        if not tests.open(*MAIN):
            break
        answers = answerer.answer(look)
        latencies = answerer.timed(look, answers) if tests.open("p95_latency_ms") else []
        _score_look(tests, done, look, answers, latencies)
        _note_intervals(tests, done)
        if on_look:
            estimates = {name: m.estimate for name, m in tests.measurements().items()}
            usd = sum(float(r["usd_paid"]) for r in done.rows)  # type: ignore[arg-type]
            on_look(Progress(done.evaluation.stage, len(done.rows), len(rows), usd, estimates))
        if tests.lost > max(1.0, MAX_LOST_SHARE * len(rows)):
            reasons = sorted({str(r["error"]) for r in done.rows if r["error"]})
            return f"{tests.lost} of {len(done.rows)} requests were lost to the infrastructure ({'; '.join(reasons)[:300]})"
    return None


def looks(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows in slices of one look."""
    for start in range(0, len(rows), LOOK):
        yield rows.iloc[start : start + LOOK]


def _score_look(tests: Tests, done: Measured, look: pd.DataFrame, answers: list[Answer], latencies: list[float]) -> None:
    scored = [(row, a) for row, a in zip(look.itertuples(), answers, strict=True) if a.text is not None]
    scores = [metrics.exact_label(tests.use_case.task, a.text or "", row.label) for row, a in scored]
    lost = len(answers) - len(scored)
    tests.lost += lost
    tests.add("quality", [s.quality for s in scores], lost)
    tests.add("adherence", [s.adherence for s in scores], lost)
    tests.add("p95_latency_ms", latencies)
    tests.add("usd_per_1k_requests", [1000 * a.usd for _, a in scored])
    done.rows += [_row(row.id, row.text, row.label, a, s.quality, "gate") for (row, a), s in zip(scored, scores, strict=True)]
    done.rows += [
        _row(row.id, row.text, row.label, a, None, "gate")
        for row, a in zip(look.itertuples(), answers, strict=True)
        if a.text is None
    ]


def _beyond(tests: Tests, done: Measured, answerer: Answerer, name: str, rows: pd.DataFrame | None) -> None:
    """Requirements with rows of their own: out-of-scope inputs and shifted inputs."""
    if rows is None or name not in tests.by_name:
        return
    task = tests.use_case.task
    for look in looks(rows):
        if not tests.open(name):
            break
        answers = answerer.answer(look)
        labels = list(look["label"]) if name == "shift_quality" else [None] * len(look)
        scores = [metrics.exact_label(task, a.text, want) for a, want in zip(answers, labels, strict=True) if a.text is not None]
        values = [s.quality if name == "shift_quality" else s.declined for s in scores]
        tests.add(name, values, len(answers) - len(scores))
        done.rows += [
            _row(row.id, row.text, want, a, None, name)
            for row, a, want in zip(look.itertuples(), answers, labels, strict=True)
        ]


def _row(
    row_id: str, text: str, expected: str | None, answer: Answer, score: float | None, split: str
) -> dict[str, object]:
    return {
        "id": row_id,
        "input": text,
        "expected": expected,
        "answer": answer.text,
        "score": score,
        "latency_ms": answer.latency_ms,
        "usd": answer.usd,
        "usd_paid": 0.0 if answer.from_store else answer.usd,
        "from_store": answer.from_store,
        "input_tokens": answer.input_tokens,
        "cached_tokens": answer.cached_tokens,
        "output_tokens": answer.output_tokens,
        "error": answer.error,
        "set": split,
    }


def _note_intervals(tests: Tests, done: Measured) -> None:
    done.narrowing += [
        {"requirement": m.name, "n": m.n, "estimate": m.estimate, "lower": m.lower, "upper": m.upper}
        for m in tests.measurements().values()
    ]


def _totals(rows: list[dict[str, object]]) -> dict[str, float]:
    def total(column: str) -> float:
        return float(sum(float(row[column] or 0) for row in rows))  # type: ignore[arg-type]

    reused = sum(bool(row["from_store"]) for row in rows)
    return {
        "tokens.input": total("input_tokens"),
        "tokens.cached": total("cached_tokens"),
        "tokens.output": total("output_tokens"),
        "calls.paid": float(sum(row["error"] is None for row in rows) - reused),
        "calls.cached": float(reused),
    }
