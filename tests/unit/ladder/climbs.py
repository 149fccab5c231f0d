"""Histories to test the ladder on: a use case that has everything, and records that pass or fail as named."""

from typing import Any

from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Record, Situation
from leastwise.ladder.gate import Evaluation, judge
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.requirements import Requirement

BOUNDS: dict[str, tuple[float, float]] = {
    "quality": (0.8, 0.1),
    "adherence": (0.95, 0.05),
    "p95_latency_ms": (800, 200),
    "usd_per_1k_requests": (1.0, 0.2),
}


PASSING = {
    "quality": (0.85, 0.99),
    "adherence": (0.95, 1),
    "p95_latency_ms": (10, 90),
    "usd_per_1k_requests": (0.1, 0.2),
}


FAILING = {"quality": (0.1, 0.2), "adherence": (0.1, 0.2), "p95_latency_ms": (2e3, 3e3), "usd_per_1k_requests": (5, 6)}


OPEN = {"quality": (0.6, 0.9), "adherence": (0.5, 1), "p95_latency_ms": (10, 2e3), "usd_per_1k_requests": (0.1, 6)}


ROWS = Situation(train_rows=5000, document_rows=500, unlabelled_rows=5000, repeat_share=0.5)


PACKAGE = {"uri": "package://small", "venue": "managed"}


CAUSAL = {"kind": "causal"}


RECORDS = {"kind": "extraction", "instruction": "Extract.", "json_schema": {"type": "object", "properties": {"a": {}}}}


def use_case(**changes: Any) -> UseCase:
    """Everything every stage needs, leave for all of them, every bound asked for."""
    tables = ("train", "dev", "gate", "test", "documents", "unlabelled", "traffic")
    fields: dict[str, Any] = {
        "name": "triage",
        "task": {"instruction": "Name it.", "labels": ["a", "b"], "domain_is_public": False},
        "data": {name: f"{name}.csv" for name in tables},
        "requirements": {name: {"bound": b, "margin": m} for name, (b, m) in BOUNDS.items()},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [PACKAGE | {"venue": "api"}],
            "base": PACKAGE,
            "embedder": PACKAGE["uri"],
            "student": PACKAGE["uri"],
        },
        "approvals": dict.fromkeys(LADDER, "granted"),
    }
    for name, value in changes.items():
        merge = isinstance(fields.get(name), dict) and name != "requirements" and "kind" not in value
        fields[name] = fields[name] | value if merge else value
    return UseCase.model_validate(fields)


def evaluation(
    fail: str = "", undecided: str = "", estimate: float | None = None, lower: float | None = None
) -> Evaluation:
    """An evaluation that passes but for the named requirements (words)."""
    measurements = {}
    for name, (bound, margin) in BOUNDS.items():
        low, high = (FAILING if name in fail.split() else OPEN if name in undecided.split() else PASSING)[name]
        measurements[name] = Measurement(
            name=name,
            estimate=(low + high) / 2 if estimate is None else estimate,
            upper=high,
            lower=lower if lower is not None and name == "quality" else low,
            n=100,
            bound=bound,
            margin=margin,
            alpha_pass=0.01,
            alpha_fail=0.01,
        )
    return Evaluation(stage="prompt", candidate="c", gate_hash="g", measurements=measurements)


WANTED = [Requirement(name=name, bound=b, margin=m) for name, (b, m) in BOUNDS.items()]


def record(stage: Any, fail: str = "", undecided: str = "", resolution: Any = None, **more: Any) -> Record:
    got = evaluation(fail, undecided, lower=more.pop("lower", None))
    return Record(stage=stage, evaluation=got, verdict=judge(got, WANTED), resolution=resolution, **more)


def broken(stage: Any) -> Record:
    got = evaluation().model_copy(update={"error": "the provider is down"})
    return Record(stage=stage, evaluation=got, verdict=judge(got, WANTED))


def skipped(*stages: Any) -> list[Record]:
    return [Record(stage=stage, skipped="for a reason") for stage in stages]


NO_TRAINING = Situation(train_rows=999, unlabelled_rows=0, repeat_share=0)
