"""Measuring a candidate: gate rows in seeded order, in looks, until the verdict is decided or the rows run out.

It answers nothing itself (see `leastwise.answering.answering`) and it does not judge: the verdict is computed from what was logged.

**Units.** Where `data.unit_by` names a column, the rows that share its value (a conversation, a customer) are one unit
and count once: quality, adherence, out-of-scope and shifted inputs by the mean of the unit's rows, cost by its mean,
latency by one row drawn by hash (quantiles need independent times). The estimand is then unit-weighted: what a random row
of a random unit scores, costs or takes. A unit that lost any row is lost as a whole, against PASS and against FAIL.

**Population `this_set`.** Each share is judged on its own table as a closed set (gate rows, `out_of_scope`, `shifted`),
counted in units where rows share one. Cost and latency stay claims about future traffic. Sampled traffic, on which `cache`
is judged, keeps its own order, so there a verdict before the last row takes that order for a random one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from leastwise import metrics
from leastwise.evaluating import scope_figures
from leastwise.evaluating.consistency import Asked, ask_again
from leastwise.evaluating.gate_tests import Alphas, Tests
from leastwise.evaluating.scorer import ExactScorer, Scorer
from leastwise.evidence.betting import FloatArray
from leastwise.evidence.examples_needed import more_to_decide
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import Evaluation
from leastwise.metrics.answer import Answer
from leastwise.metrics.grades import Grades
from leastwise.rows.gate_rows import LOOK, looks, seeded, unit_count, unit_numbers, unit_scores, whole_units
from leastwise.rows.tables import KIND, UNIT
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.task import Task

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.evaluating.forgetting import Exam

GUARDED: frozenset[Stage] = frozenset({"rag", "fine_tune", "pretrain", "distill"})  # a guard may be tried there
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


@dataclass
class Progress:
    """How far an evaluation is, in rows; `to_go` is about how many more decide it, None where that is not known."""

    stage: str
    rows: int
    of: int
    usd: float
    estimates: dict[str, float]
    to_go: int | None = None


@dataclass
class Measured:
    """An evaluation, the totals behind it and one record a row; `grades` where a judge's grades were corrected."""

    evaluation: Evaluation
    totals: dict[str, float]
    rows: list[dict[str, object]] = field(default_factory=list)
    grades: Grades | None = None
    timed_ms: list[float] = field(default_factory=list)
    narrowing: list[dict[str, float | str]] = field(default_factory=list)


def candidates_on_gate_set(use_case: UseCase) -> int:
    """K: every candidate a climb may judge on its gate set; fixed before the first look."""
    tries = (2 if use_case.task.can_be_constrained else 1) * len(use_case.models.candidates)
    stages = LADDER[: LADDER.index(use_case.last_stage) + 1]
    reference = 1 if use_case.reference == "stop" else 0
    pairs = {"prompt": len(use_case.models.candidates) > 1, "distill": True}
    cascades = sum(pairs.get(stage, False) for stage in stages) if use_case.offers_cascades else 0
    guards = sum(stage in GUARDED for stage in stages) if use_case.offers_guards else 0
    return reference + cascades + guards + sum(tries if stage in ("prompt", "rag") else 1 for stage in stages)


def alphas(use_case: UseCase, drawn: float) -> Alphas:
    """alpha/K to pass; to fail, alpha split over the requirements (see the guarantee in `leastwise.ladder.gate`)."""
    return Alphas(drawn / candidates_on_gate_set(use_case), use_case.alpha / len(use_case.requirements.bounds))


def evaluate(
    use_case: UseCase,
    candidate: Candidate,
    answerer: Answerer,
    rows: pd.DataFrame,
    alpha: Alphas,
    set_hash: str,
    *,
    scorer: Scorer | None = None,
    out_of_scope: pd.DataFrame | None = None,
    shifted: pd.DataFrame | None = None,
    exam: Exam | None = None,
    paraphrases: pd.DataFrame | None = None,
    on_look: Callable[[Progress], None] | None = None,
) -> Measured:
    """Measure a candidate on rows (already in the order to use) until its verdict is decided or they run out.

    Where `data.unit_by` is set every table has the column `leastwise.rows.tables.UNIT` (see `leastwise.rows.gate_rows`), and `n` counts units.
    """
    own = {
        name: table for name, table in (("ood_decline", out_of_scope), ("shift_quality", shifted)) if table is not None
    }
    if exam is not None:
        own["general_ability"] = exam.rows
    sizes = dict.fromkeys(MAIN, unit_count(rows)) | {name: unit_count(table) for name, table in own.items()}
    marker = scorer or ExactScorer(use_case.task)
    tests = Tests(use_case, alpha, answerer, sizes, marker.grades)
    done = Measured(Evaluation(stage=candidate.stage, candidate=candidate.key, gate_hash=set_hash, measurements={}), {})
    done.grades = marker.grades
    error = _gate(marker, tests, done, answerer, rows, on_look)
    if error is None and not tests.failed:
        for name, table in own.items():
            is_general = exam is not None and name == "general_ability"
            by, asked = (exam, exam) if is_general else (marker, answerer)
            _beyond(by, tests, done, asked, name, seeded(table, set_hash))
    again = ask_again(use_case, answerer, rows, paraphrases) if error is None else Asked()
    spent = sum(float(r["usd_paid"]) for r in done.rows) + marker.usd_paid + again.usd  # type: ignore[arg-type]
    done.evaluation = done.evaluation.model_copy(
        update={"measurements": tests.measurements(), "usd_spent": spent, "error": error}
    )
    requests = [row for row in done.rows if row["set"] != "general_ability"]  # general tasks are no requests
    reported = _reported(use_case.task, done.rows) | scope_figures.figures(use_case.task, done.rows)
    done.totals = _totals(requests) | _throughput(use_case, done) | reported | marker.figures() | again.figures
    done.totals["calls.paid"] += sum(
        done.totals.get(f"{name}.calls", 0.0) for name in ("judge", "self_consistency", "consistency")
    )
    return done


def measure_all(
    use_case: UseCase,
    answerer: Answerer,
    rows: pd.DataFrame,
    on_look: Callable[[Progress], None] | None = None,
    scorer: Scorer | None = None,
) -> dict[str, tuple[float, int]]:
    """Plain quality and adherence over all rows, each with its n: the figure that is reported, not a gate.

    Unit-weighted where rows share a unit, as in the gate; n then counts units. Units of which the infrastructure lost a
    row are left out; where it lost more than 1% of the rows there is no figure: empty.
    """
    marker = scorer or ExactScorer(use_case.task)
    scores: list[metrics.Score | None] = []
    size = 4 * LOOK
    for start in range(0, len(rows), size):
        part = rows.iloc[start : start + size]
        scores += marker.score(part, answerer.answer(part))
        if on_look:
            known = [score.quality for score in scores if score]
            on_look(
                Progress(
                    "confirm on test",
                    len(scores),
                    len(rows),
                    marker.usd_paid,
                    {"quality": float(np.mean(known or [0]))},
                )
            )
    lost = [score is None for score in scores]
    if sum(lost) > MAX_LOST_SHARE * len(rows):
        return {}
    whole = whole_units(rows, lost)
    kept, known = rows.iloc[whole], [scores[at] for at in whole]
    quality = unit_scores(kept, [score.quality for score in known if score])
    adherence = unit_scores(kept, [score.adherence for score in known if score])
    corrected = float(quality.mean()) + (marker.grades.mean_error if marker.grades else 0.0)
    return {"quality": (corrected, quality.size), "adherence": (float(adherence.mean()), adherence.size)}


def _gate(
    marker: Scorer,
    tests: Tests,
    done: Measured,
    answerer: Answerer,
    rows: pd.DataFrame,
    on_look: Callable[[Progress], None] | None,
) -> str | None:
    """Look after look over the gate rows; gives back why it had to stop, if the infrastructure failed."""
    for look in looks(rows):
        if not tests.open(*MAIN):
            break
        answered = _Answered.of(marker, look, answerer.answer(look))
        done.timed_ms += _add_look(tests, answered, answerer, done.evaluation.gate_hash)
        done.rows += answered.as_rows("gate")
        _note_intervals(tests, done)
        if on_look:
            estimates = {name: m.estimate for name, m in tests.measurements().items()}
            usd = sum(float(r["usd_paid"]) for r in done.rows) + marker.usd_paid  # type: ignore[arg-type]
            to_go = _rows_to_go(tests, len(done.rows), len(rows))
            on_look(Progress(done.evaluation.stage, len(done.rows), len(rows), usd, estimates, to_go))
        lost = sum(r["score"] is None for r in done.rows)
        if lost > max(1.0, MAX_LOST_SHARE * len(rows)):
            reasons = sorted({str(r["error"] or "the judge gave no grade") for r in done.rows if r["score"] is None})
            return f"{lost} of {len(done.rows)} requests were lost to the infrastructure ({'; '.join(reasons)[:300]})"
    return None


def _rows_to_go(tests: Tests, rows: int, of: int) -> int | None:
    """About how many more rows decide every open requirement, at most those that are left."""
    if not tests.open(*MAIN):
        return 0
    wanted = [
        more_to_decide(m) for name, m in tests.measurements().items() if tests.by_name[name].outcome == "undecided"
    ]
    known = [examples for examples in wanted if examples]
    if not known:
        return None
    rows_an_example = rows / max(m.n for m in tests.measurements().values())
    return min(math.ceil(max(known) * rows_an_example), of - rows)


@dataclass(frozen=True)
class _Answered:
    """The rows of one look and what came of them; a score is None where the infrastructure lost the answer."""

    rows: pd.DataFrame
    answers: list[Answer]
    scores: list[metrics.Score | None]

    @classmethod
    def of(cls, marker: Scorer, rows: pd.DataFrame, answers: list[Answer], is_labelled: bool = True) -> _Answered:
        return cls(rows, answers, marker.score(rows, answers, is_labelled))

    @property
    def whole(self) -> np.ndarray:
        return whole_units(self.rows, [score is None for score in self.scores])

    @property
    def lost_rows(self) -> int:
        return sum(score is None for score in self.scores)

    @property
    def lost_units(self) -> int:
        return unit_count(self.rows) - unit_count(self.rows.iloc[self.whole])

    def means(self, value: Callable[[metrics.Score, Answer], float]) -> FloatArray:
        """One value for each unit that lost no row."""
        values = [value(self.scores[at], self.answers[at]) for at in self.whole]  # type: ignore[arg-type]
        return unit_scores(self.rows.iloc[self.whole], values)

    def one_a_unit(self, salt: str) -> list[int]:
        """Positions of one row for each unit that lost none, drawn by a hash so that long units' first rows have no lead."""
        numbers, drawn = unit_numbers(self.rows), {}
        for at in sorted(self.whole, key=lambda at: _drawn(salt, self.rows["id"].iloc[at])):
            drawn.setdefault(numbers[at], int(at))
        return sorted(drawn.values())

    def as_rows(self, split: str) -> list[dict[str, object]]:
        """One record a row; the score of an out-of-scope row is whether it was declined."""
        is_beyond = split == "ood_decline"
        wants = [None] * len(self.rows) if is_beyond else self.rows["label"]
        scores = [score and (score.declined if is_beyond else score.quality) for score in self.scores]
        judged = [score.judged if score and split == "gate" else None for score in self.scores]
        units, kinds = ([*self.rows[name]] if name in self.rows else [None] * len(self.rows) for name in (UNIT, KIND))
        each = zip(self.rows["id"], self.rows["text"], wants, self.answers, scores, judged, units, kinds, strict=True)
        return [_row(*one, split) for one in each]


def _drawn(salt: str, row_id: object) -> bytes:
    return hashlib.sha256(f"{salt}:{row_id}".encode()).digest()


def _add_look(tests: Tests, answered: _Answered, answerer: Answerer, salt: str) -> list[float]:
    """Add one look to every test; gives back the latencies over HTTP that were measured for it, milliseconds."""
    lost = answered.lost_units
    tests.count(("quality", "adherence"), len(answered.rows) - answered.lost_rows, answered.lost_rows)
    timed: list[float] = []
    if tests.open("p95_latency_ms"):
        drawn = answered.one_a_unit(salt)
        timed = answerer.timed(answered.rows.iloc[drawn], [answered.answers[at] for at in drawn])
        tests.add("p95_latency_ms", timed, lost)
    tests.add("quality", answered.means(lambda score, _: score.quality), lost)
    tests.add("adherence", answered.means(lambda score, _: score.adherence), lost)
    tests.add("usd_per_1k_requests", answered.means(lambda _, answer: 1000 * answer.usd), lost)
    return timed


def _beyond(marker: Scorer, tests: Tests, done: Measured, answerer: Any, name: str, rows: pd.DataFrame) -> None:
    """Requirements with rows of their own: out-of-scope inputs, shifted inputs, general tasks."""
    is_labelled = name != "ood_decline"
    for look in looks(rows):
        if not tests.open(name):
            break
        answered = _Answered.of(marker, look, answerer.answer(look), is_labelled=is_labelled)
        tests.count((name,), len(look) - answered.lost_rows, answered.lost_rows)
        tests.add(
            name, answered.means(lambda score, _: score.quality if is_labelled else score.declined), answered.lost_units
        )
        done.rows += answered.as_rows(name)


def _row(
    row_id: str,
    text: str,
    expected: str | None,
    answer: Answer,
    score: float | None,
    judged: float | None,
    unit: object,
    kind: object,
    split: str,
) -> dict[str, object]:
    """One line of the table of examples; `judged` only where a judge graded, `scope` only where a guard did."""
    seldom = {"judged": judged, "scope": answer.scope, "kind": kind}
    return {
        "id": row_id,
        "input": text,
        "expected": expected,
        "answer": answer.text,
        "score": score,
        **{name: value for name, value in seldom.items() if value is not None},
        "latency_ms": answer.latency_ms,
        "usd": answer.usd,
        "usd_paid": 0.0 if answer.from_store else answer.usd,
        "from_store": answer.from_store,
        "input_tokens": answer.input_tokens,
        "cached_tokens": answer.cached_tokens,
        "output_tokens": answer.output_tokens,
        "error": answer.error,
        "set": split,
        "unit": unit,
    }


def _note_intervals(tests: Tests, done: Measured) -> None:
    done.narrowing += [
        {"requirement": m.name, "n": m.n, "estimate": m.estimate, "lower": m.lower, "upper": m.upper}
        for m in tests.measurements().values()
    ]


def _reported(task: Task, rows: list[dict[str, object]]) -> dict[str, float]:
    """Figures over the gate rows that are reported and not judged; none where no row has an answer."""
    answered = [row for row in rows if row["set"] == "gate" and row["answer"] is not None]
    if not answered or task.kind != "classification":
        return {}
    labels = [metrics.normalize(task, str(row["answer"])) for row in answered]
    return {"macro_f1": metrics.macro_f1(labels, [str(row["expected"]) for row in answered])}


def _throughput(use_case: UseCase, done: Measured) -> dict[str, float]:
    """Requests a second at the traffic's concurrency, by Little's law from the mean latency; none where nothing was timed."""
    timed = done.timed_ms or [float(r["latency_ms"]) for r in done.rows if r["latency_ms"] is not None]  # type: ignore[arg-type]
    mean_ms = float(np.mean(timed)) if timed else 0.0
    return {"requests_per_s": 1000 * use_case.traffic.concurrency / mean_ms} if mean_ms > 0 else {}


def _totals(rows: list[dict[str, object]]) -> dict[str, float]:
    def total(column: str) -> float:
        return float(sum(float(row[column] or 0) for row in rows))  # type: ignore[arg-type]

    reused = sum(bool(row["from_store"]) for row in rows)
    return {
        "tokens.input": total("input_tokens"),
        "tokens.cached": total("cached_tokens"),
        "tokens.output": total("output_tokens"),
        "usd.per_request": total("usd") / max(len(rows), 1),
        "calls.paid": float(sum(row["error"] is None for row in rows) - reused),
        "calls.cached": float(reused),
    }
