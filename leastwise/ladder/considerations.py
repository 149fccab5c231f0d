"""The decision matrix: what each trait of a use case says for or against a stage, one row a rule.

It reads fields and row counts only, rules no stage out (see `leastwise.ladder.needs`) and estimates no cost.
"""

from __future__ import annotations

from collections.abc import Callable

from leastwise.ladder.needs import REMEDIES
from leastwise.ladder.premises import Premises
from leastwise.ladder.prospects import HOSTED_LLM_MS
from leastwise.part import Part
from leastwise.use_case import UseCase

FEW_REQUESTS_PER_MONTH = 100_000
MANY_REQUESTS_PER_MONTH = 1_000_000
CONSISTENT_SHARE = 0.95


class Consideration(Part):
    """One row of the decision matrix: what was looked at, what the use case says, and what follows."""

    name: str
    finding: str
    advice: str


def considerations(use_case: UseCase, premises: Premises) -> tuple[Consideration, ...]:
    """Every row of the matrix, in its order."""
    return tuple(row for consider in _MATRIX if (row := consider(use_case, premises)))


def _volume(use_case: UseCase, premises: Premises) -> Consideration:
    month = use_case.traffic.requests_per_month
    advice = "fixed costs spread over many requests: training and hosting can pay"
    if month < FEW_REQUESTS_PER_MONTH:
        advice = "below 100,000 requests a month training and hosting rarely pay: prompt and rag first"
    return Consideration(name="volume", finding=f"{month:,} requests a month", advice=advice)


def _own_data(use_case: UseCase, premises: Premises) -> Consideration:
    examples, documents = premises.rows.get("train", 0), premises.rows.get("documents", 0)
    advice = (
        "retrieve it before training on it (rag)" if examples or documents else "nothing to retrieve: rag cannot help"
    )
    return Consideration(
        name="proprietary data", finding=f"{examples:,} examples, {documents:,} documents", advice=advice
    )


def _consistency(use_case: UseCase, premises: Premises) -> Consideration:
    limit = use_case.requirements.adherence
    if limit is None:
        return Consideration(name="consistency", finding="no bound on the format", advice="nothing follows")
    advice = "prompting usually gets there"
    if limit.bound >= CONSISTENT_SHARE:
        advice = "constrained output first; if that costs quality, fine_tune"
    return Consideration(name="consistency", finding=f"{limit.bound:.1%} of answers in format", advice=advice)


def _validated_volume(use_case: UseCase, premises: Premises) -> Consideration:
    month, required = use_case.traffic.requests_per_month, set(use_case.requirements.bounds)
    pays = month >= MANY_REQUESTS_PER_MONTH and use_case.task.stable and required & REMEDIES["self_host"]
    advice = (
        "once a candidate passes quality, distill it and own the endpoint" if pays else "no case for distillation yet"
    )
    return Consideration(
        name="volume on a validated task",
        finding=f"{month:,} a month, {'stable' if use_case.task.stable else 'changing'} task",
        advice=advice,
    )


def _residency(use_case: UseCase, premises: Premises) -> Consideration:
    limits = use_case.requirements.residency
    if limits is None:
        return Consideration(name="data that cannot leave", finding="no limit", advice="any venue may answer")
    inside = limits.venues == ("self_host",)
    advice = "open weights on own machines from the first stage on" if inside else "only these venues are ever asked"
    return Consideration(name="data that cannot leave", finding=f"allowed: {', '.join(limits.venues)}", advice=advice)


def _domain(use_case: UseCase, premises: Premises) -> Consideration:
    if use_case.task.domain_is_public:
        return Consideration(
            name="unique domain", finding="public text resembles it", advice="continued pre-training adds little"
        )
    return Consideration(
        name="unique domain",
        finding="no public text resembles it",
        advice="pretrain may help, if rag and fine_tune fail",
    )


def _change(use_case: UseCase, premises: Premises) -> Consideration:
    if use_case.task.stable:
        return Consideration(name="tasks that change", finding="stable", advice="training can last")
    return Consideration(
        name="tasks that change",
        finding="labels or rules change often",
        advice="never train: a prompt is changed in minutes",
    )


def _latency(use_case: UseCase, premises: Premises) -> Consideration:
    limit = use_case.requirements.p95_latency_ms
    if limit is None:
        return Consideration(name="latency", finding="no bound", advice="nothing follows")
    tight = limit.bound + limit.margin < HOSTED_LLM_MS
    advice = "a hosted LLM hardly answers that fast: distill, self_host" if tight else "a hosted LLM can answer in time"
    return Consideration(name="latency", finding=f"p95 of {limit.bound:,.0f} ms", advice=advice)


def _trainer(use_case: UseCase, premises: Premises) -> Consideration | None:
    """Who trains, where that is somebody else, and at what price."""
    managed = use_case.training.managed
    if managed is None or managed.price is None:
        return None
    price, expected = managed.price, premises.expected.get("fine_tune")
    rate = f"${price.usd_per_million_tokens:.4g} a million tokens ({price.source}, {price.as_of})"
    total = f"about ${expected.usd:.4g} with judging it, " if expected else ""
    return Consideration(
        name="who trains",
        finding=f"{managed.base.request_host}: {managed.base.uri}",
        advice=f"fine_tune is trained and answers there, {total}training at {rate}; its rows go there",
    )


_MATRIX: tuple[Callable[[UseCase, Premises], Consideration | None], ...] = (
    _volume,
    _own_data,
    _consistency,
    _validated_volume,
    _residency,
    _domain,
    _change,
    _latency,
    _trainer,
)
