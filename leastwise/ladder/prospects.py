"""Where a climb may stop, by arithmetic on cost and rules of thumb on latency, before anything is measured.

A guess that rules nothing out: the climb still checks every stage that applies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leastwise.ladder.premises import Premises
from leastwise.money.economics import monthly_api_usd, monthly_self_host, payback_months, true_cost_of_fine_tuning
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.price import Price, Usage
from leastwise.use_case.requirements import RequirementName

TYPICAL_PROMPT_TOKENS: dict[Stage, int] = {"prompt": 500, "rag": 900, "cache": 500}
TRAINED: tuple[Stage, ...] = ("fine_tune", "pretrain", "distill")
HOSTED_LLM_MS = 400.0  # what a hosted LLM takes at the least
THINKING_MS_PER_TOKEN = 10.0  # about what a hosted model takes for a token that it thinks


@dataclass(frozen=True)
class ExpectedStop:
    """The stage a climb is expected to end at (None: at none) and why."""

    stage: Stage | None
    why: str


def doubts_about(use_case: UseCase, stage: Stage, premises: Premises) -> dict[RequirementName, str]:
    """Cost and latency bounds a stage is not expected to meet, each with its figures: arithmetic and rules of thumb."""
    cost, latency = use_case.requirements.usd_per_1k_requests, use_case.requirements.p95_latency_ms
    doubts: dict[RequirementName, str] = {}
    usd = likely_usd_per_1k(use_case, stage, premises)
    if cost and usd is not None and usd > cost.bound + cost.margin:
        doubts["usd_per_1k_requests"] = f"about ${usd:.4g} against ${cost.bound:.4g}"
    thought = _expected_thinking(use_case, stage)
    least_ms = HOSTED_LLM_MS + THINKING_MS_PER_TOKEN * thought
    if latency and stage not in ("distill", "self_host") and latency.bound + latency.margin < least_ms:
        thinking = f" and thinks for about {thought} tokens" if thought else ""
        allowed = f"{latency.bound:.0f} are allowed"
        doubts["p95_latency_ms"] = f"a hosted LLM takes {least_ms:.0f} ms or more{thinking}, {allowed}"
    return doubts


def _expected_thinking(use_case: UseCase, stage: Stage) -> int:
    """Tokens that even the model which thinks least is expected to think for, where the stage asks such models."""
    if stage not in TYPICAL_PROMPT_TOKENS:
        return 0
    allowed = [each for each in use_case.models.candidates if use_case.may_be_sent_to(each)]
    return min((each.expected_reasoning_tokens for each in allowed), default=0)


def likely_usd_per_1k(use_case: UseCase, stage: Stage, premises: Premises) -> float | None:
    """Dollars of 1,000 requests at the cheapest allowed price, long prompts and full answers; None where unknown.

    `cache` is the best it can do: every input token read from the cache, every repetition free. The number of machines
    is not known beforehand: one, plus the spares.
    """
    hosting, month = use_case.hosting, use_case.traffic.requests_per_month
    if stage == "self_host":
        machines = 1 + hosting.spare_machines
        own = monthly_self_host(
            machines, hosting.usd_per_month_per_machine, hosting.storage_usd_per_month, hosting.operations_usd_per_month
        )
        return own.usd_per_1k(month)
    minimum = hosting.managed_minimum_usd_per_month * 1000 / month
    if stage == "distill":
        return minimum
    prices = _token_prices(use_case, stage, premises)
    if not prices:
        return None
    output = use_case.traffic.output_tokens + _expected_thinking(use_case, stage)
    if stage == "cache":
        tokens = _prompt_tokens("cache", premises)
        hit = Usage(input_tokens=tokens, cached_tokens=tokens, output_tokens=output)
        return 1000 * min(price.usd(hit) for price in prices) * (1 - (premises.repeat_share or 0.0))
    usage = Usage(input_tokens=_prompt_tokens(stage, premises), output_tokens=output)
    cheapest = min(prices, key=lambda price: price.usd(usage))
    usd = monthly_api_usd(cheapest, usage, 1000, use_case.traffic.retry_share)
    base, hosted = use_case.models.base, use_case.training.managed is not None
    is_managed = hosted or (base is not None and base.venue == "managed")
    return usd + (minimum if stage in ("fine_tune", "pretrain") and is_managed else 0.0)


def payback_of(use_case: UseCase, premises: Premises, possible: Collection[Stage]) -> dict[Stage, float]:
    """Months in which each possible stage that trains or hosts pays for what it is expected to cost, training with what
    surrounds it, by its likely bill against the cheapest prompt's. Left out: what costs nothing, and what is no cheaper
    a month, for then the money buys something else.
    """
    before = likely_usd_per_1k(use_case, "prompt", premises)
    found: dict[Stage, float] = {}
    for stage in (*TRAINED, "self_host") if before is not None else ():
        expected, after = premises.expected.get(stage), likely_usd_per_1k(use_case, stage, premises)
        if stage not in possible or expected is None or after is None or before is None:
            continue
        once = true_cost_of_fine_tuning(expected.usd, use_case.training.surrounding).total_usd
        saving = (before - after) * use_case.traffic.requests_per_month / 1000
        months = payback_months(once if stage in TRAINED else expected.usd, saving)
        if months:
            found[stage] = months
    return found


def _prompt_tokens(stage: Stage, premises: Premises) -> int:
    """Of this use case's own texts, where they are known; 200 for a trained candidate's short prompt."""
    usage = premises.usages.get("prompt" if stage == "cache" else stage)
    return usage.input_tokens if usage else TYPICAL_PROMPT_TOKENS.get(stage, 200)


def _token_prices(use_case: UseCase, stage: Stage, premises: Premises) -> list[Price]:
    """Of own weights the host's price or the base's; else those of the allowed candidates."""
    if stage in ("fine_tune", "pretrain"):
        own = use_case.hosting.managed_price or premises.base_price
        return [own] if own else []
    return [premises.prices[m.uri] for m in use_case.models.candidates if use_case.may_be_sent_to(m)]


def expected_stop(use_case: UseCase, premises: Premises, possible: Sequence[Stage]) -> ExpectedStop:
    """The first possible stage no rule speaks against: the own data for `prompt`, cost and latency for every stage."""
    if not possible:
        return ExpectedStop(None, "no stage is possible; see the reasons")
    likely = [stage for stage in possible if not doubts_about(use_case, stage, premises)]
    if not likely:
        return ExpectedStop(
            None, "no possible stage is expected to meet cost and latency; the climb may end with `none`"
        )
    first = likely[0]
    if first == "prompt" and "rag" in likely:
        return ExpectedStop(
            "rag", "there is own data to show the model; most use cases need no more (a guess, not evidence)"
        )
    if first in ("distill", "self_host"):
        return ExpectedStop(
            first, "every stage below is too dear or too slow by arithmetic (the climb still checks each that applies)"
        )
    return ExpectedStop(first, "the simplest stage that nothing speaks against (a guess, not evidence)")
