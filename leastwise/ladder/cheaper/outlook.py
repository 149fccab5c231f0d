"""What deciding takes: gate examples by requirement, candidates that share alpha, calls and dollars of prompt and rag.

Every figure is of candidates exactly as good as asked, the hardest to decide: better and worse ones take fewer. What is
trained answers from a server of ours, so its examples cost no calls that are paid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from leastwise.evidence.examples_needed import LOOK, GateNeed, examples_for_p95, examples_to_decide
from leastwise.ladder.alphas import Alphas, candidates_on_gate_set, first_alphas
from leastwise.ladder.needs import ruled_out
from leastwise.ladder.premises import Premises
from leastwise.money.expected_cost import Facts, tries_of
from leastwise.money.request_usage import request_usage
from leastwise.money.search_cost import expected_search
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.requirements import SHARES

ASKED: tuple[Stage, ...] = ("prompt", "rag")
OWN_TABLE = {"ood_decline": "out_of_scope", "shift_quality": "shifted"}
LEAST_SHOWN_USD = 1e-6


@dataclass(frozen=True)
class Outlook:
    """What deciding a use case takes. `calls` and `usd`: every try of prompt and rag, and their searches on dev."""

    candidates: int  # K, that share alpha
    examples: int  # of the gate set, by the requirement that takes most
    calls: int
    usd: float


def outlook_of(use_case: UseCase, premises: Premises, facts: Facts) -> Outlook:
    """What deciding takes by the arithmetic of the gate and of the expected costs; alphas as of a first question."""
    alphas = first_alphas(use_case)
    needs = [need for need in gate_needs(use_case, premises, alphas) if need.requirement not in OWN_TABLE]
    units, rows = premises.gate_units, premises.rows.get("gate", 0)
    examples = max([LOOK, *(need.examples for need in needs if need.requirement != "general_ability")])
    if use_case.data.population == "this_set":
        examples = max(units, 1)
    asked = min(math.ceil(examples / LOOK) * LOOK, max(units, 1))
    calls_a_try = math.ceil(asked * rows / max(units, 1))
    calls, usd = 0, 0.0
    for stage in ASKED:
        if ruled_out(use_case, stage, premises.situation) is not None:
            continue
        tries = tries_of(use_case, stage, facts)
        for each in tries:
            usage = request_usage(use_case, stage, facts.sizes, each.constrained)
            usage = replace(usage, output_tokens=usage.output_tokens + each.thinking_tokens)
            calls, usd = calls + calls_a_try, usd + calls_a_try * each.price.usd(usage)
        plain = request_usage(use_case, stage, facts.sizes)
        prices = [each.price for each in tries]
        if found := expected_search(use_case, stage, facts.rows.get("dev", 0), plain, prices):
            calls, usd = calls + found.calls, usd + found.usd
    return Outlook(candidates_on_gate_set(use_case), examples, calls, usd)


def gate_needs(use_case: UseCase, premises: Premises, alphas: Alphas) -> list[GateNeed]:
    """About how many examples decide each requirement of a candidate exactly as good as asked."""
    needs = []
    for name, limit in use_case.requirements.bounds.items():
        rows = premises.rows.get(OWN_TABLE.get(name, "gate"), 0)
        rows = use_case.forgetting.tasks if name == "general_ability" else rows
        if limit.margin == 0 or use_case.data.population == "this_set":
            continue
        if name in SHARES:
            examples = examples_to_decide(limit.bound, limit.margin, alphas.to_pass, alphas.to_fail)
        elif name == "p95_latency_ms":
            examples = examples_for_p95(alphas.to_pass)
        else:
            continue  # cost is the same for every request but for its length: a few examples
        needs.append(GateNeed(requirement=name, examples=examples, rows=rows))
    return needs
