"""The two error probabilities of a candidate's tests, from the alpha its question drew. It keeps no account.

To pass, alpha/K for each of the K candidates a climb may judge (passing needs every requirement, so there is no split
over them). To fail, alpha split over the requirements. The guarantee is stated in `leastwise.ladder.gate`.
"""

from __future__ import annotations

from dataclasses import dataclass

from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.use_case import Stage, UseCase

GUARDED: frozenset[Stage] = frozenset({"rag", "fine_tune", "pretrain", "distill"})  # a guard may be tried there


@dataclass(frozen=True)
class Alphas:
    """Error probabilities of one candidate's tests, each of one requirement: of a false PASS and of a false FAIL."""

    to_pass: float
    to_fail: float


def alphas_of(use_case: UseCase, share: float) -> Alphas:
    """The alphas of every candidate of a climb that drew this share of alpha from its gate set's account."""
    return Alphas(share / candidates_on_gate_set(use_case), use_case.alpha / len(use_case.requirements.bounds))


def challenger_alphas(use_case: UseCase, share: float) -> Alphas:
    """The alphas of a challenger's gate, the only candidate of its question."""
    return Alphas(share, use_case.alpha / len(use_case.requirements.bounds))


def first_alphas(use_case: UseCase) -> Alphas:
    """The alphas of the first question that is asked of a gate set: what is assumed before any is drawn."""
    return alphas_of(use_case, share_of_alpha(use_case.alpha, 1))


def candidates_on_gate_set(use_case: UseCase) -> int:
    """K: every candidate a climb may judge on its gate set; fixed before the first look. What a search asks on dev is
    none of them.
    """
    models = len(use_case.models.candidates)
    ways = 1 if use_case.searches or not use_case.task.can_be_constrained else 2  # a search hands on one a model
    tries = ways * models
    stages = use_case.reachable_stages
    reference = 1 if use_case.reference == "stop" else 0
    is_paired = {"prompt": models > 1, "distill": True}
    cascades = sum(is_paired.get(stage, False) for stage in stages) if use_case.offers_cascades else 0
    guards = sum(stage in GUARDED for stage in stages) if use_case.offers_guards else 0
    return reference + cascades + guards + sum(tries if stage in ("prompt", "rag") else 1 for stage in stages)
