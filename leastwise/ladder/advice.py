"""Advice: what a use case tells before anything is spent, as explained rules over its fields and row counts.

It measures nothing and promises nothing: a stage is `ruled_out` only where the ladder itself could never run it, the
expected stop is a guess from rules of thumb, and no rule knows how good a model is at the task. Row counts and prices
are handed in.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leastwise.evidence.examples_needed import GateNeed
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.cheaper.outlook import gate_needs
from leastwise.ladder.cheaper.savings import Saving, savings
from leastwise.ladder.considerations import Consideration, considerations
from leastwise.ladder.needs import MIN_TRAINING_ROWS, REMEDIES, ruled_out
from leastwise.ladder.premises import Premises
from leastwise.ladder.prospects import TRAINED, doubts_about, expected_stop
from leastwise.money.economics import from_scratch
from leastwise.money.price_book import UnknownPrice
from leastwise.part import Result
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.judge import LEAST_HUMAN_GRADES

ADVISED_TRAINING_ROWS = 5_000
SCRATCH_PARAMETERS = 8e9
TOKENS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022, arXiv 2203.15556, table 3


class StageAdvice(Result):
    """What can be said of one stage before the climb."""

    stage: Stage
    status: Literal["possible", "ruled_out"]
    reason: str
    estimate_usd: float = Field(ge=0, description="What it may cost at worst, dollars; also where it is ruled out.")
    expected_usd: float | None = Field(
        None, ge=0, description="What it is expected to cost, dollars; None: not worked out."
    )
    arithmetic: tuple[str, ...] = Field((), description="How the expected figure comes.")


class Advice(Result):
    """Everything there is to say before spending; logged as JSON under these names."""

    stages: tuple[StageAdvice, ...]
    expected_stop: Stage | None = Field(description="A guess; None where no stage is possible.")
    expected_why: str
    considerations: tuple[Consideration, ...]
    gate: tuple[GateNeed, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    refused: tuple[str, ...] = Field((), description="What a climb would refuse before its first call.")
    data: tuple[str, ...] = Field((), description="What was found in the rows.")
    cheaper: tuple[Saving, ...] = Field((), description="What would make this cheaper to decide, the most first.")
    from_scratch_usd: float
    from_scratch: tuple[str, ...] = Field(description="The arithmetic of Level 5, which is never run.")
    wait: str = Field(description="Whether next quarter's model may make the work unnecessary.")

    def named(self, status: Literal["possible", "ruled_out"]) -> tuple[Stage, ...]:
        """The stages of that status, cheapest first."""
        return tuple(each.stage for each in self.stages if each.status == status)

    @property
    def possible_usd(self) -> float:
        """What all possible stages may cost at worst, dollars."""
        return sum(each.estimate_usd for each in self.stages if each.status == "possible")


def advise(use_case: UseCase, premises: Premises) -> Advice:
    """The advice for a use case, in a few milliseconds: advice never needs approval (rule 7).

    Raises UnknownPrice for an allowed candidate without a price.
    """
    _require_prices(use_case, premises)
    stages = tuple(_stage_advice(use_case, stage, premises, premises.worst.get(stage, 0.0)) for stage in LADDER)
    stop = expected_stop(use_case, premises, [each.stage for each in stages if each.status == "possible"])
    gate = tuple(gate_needs(use_case, premises, Alphas(premises.alpha_pass, premises.alpha_fail)))
    scratch = from_scratch(SCRATCH_PARAMETERS, SCRATCH_PARAMETERS * TOKENS_PER_PARAMETER)
    return Advice(
        stages=stages,
        expected_stop=stop.stage,
        expected_why=stop.why,
        considerations=considerations(use_case, premises),
        gate=gate,
        missing=tuple(_missing(use_case, premises, gate)),
        warnings=tuple(_warnings(use_case, premises, stages)),
        data=premises.found.lines if premises.found else (),
        cheaper=savings(use_case, premises),
        from_scratch_usd=scratch.usd,
        from_scratch=scratch.steps,
        wait=_wait(use_case, stages),
    )


def _require_prices(use_case: UseCase, premises: Premises) -> None:
    unpriced = [m.uri for m in use_case.models.candidates if m.uri not in premises.prices]
    if unpriced:
        raise UnknownPrice(
            f"models.candidates: no price for {', '.join(unpriced)}; give it one, or add it to the price book"
        )


def _stage_advice(use_case: UseCase, stage: Stage, premises: Premises, estimate_usd: float) -> StageAdvice:
    why_not = ruled_out(use_case, stage, premises.situation)
    if why_not:
        return StageAdvice(stage=stage, status="ruled_out", reason=why_not, estimate_usd=estimate_usd)
    expected = premises.expected.get(stage)
    helps = ", ".join(name for name in use_case.requirements.bounds if name in REMEDIES[stage])
    doubts = [f"hardly meets {name}: {why}" for name, why in doubts_about(use_case, stage, premises).items()]
    leave = "needs approval" if use_case.approval(stage, estimate_usd) == "ask" else ""
    reason = "; ".join(filter(None, [f"can help with {helps}", *doubts, leave]))
    return StageAdvice(
        stage=stage,
        status="possible",
        reason=reason,
        estimate_usd=estimate_usd,
        expected_usd=expected.usd if expected else None,
        arithmetic=expected.steps if expected else (),
    )


def _wait(use_case: UseCase, stages: tuple[StageAdvice, ...]) -> str:
    trained = [each.stage for each in stages if each.status == "possible" and each.stage in TRAINED]
    if not trained:
        return "Nothing would be trained, so a better model next quarter is a changed line in the file."
    if set(use_case.requirements.bounds) & REMEDIES["self_host"]:
        return (
            "If only quality fails, next quarter's model may make training unnecessary: wait, or rebaseline when it is "
            "out. If cost or latency fails, waiting helps less."
        )
    return (
        f"Before paying for {', '.join(trained)}: if next quarter's model may do it unaided, wait, and rebaseline "
        "when it is out."
    )


def _missing(use_case: UseCase, premises: Premises, gate: tuple[GateNeed, ...]) -> list[str]:
    train, data = premises.rows.get("train", 0), use_case.data
    lacking = [
        f"{need.requirement}: about {need.examples:,} examples decide it at these margins and alphas, {need.rows:,} "
        f"are there; add {need.short:,} or widen its margin"
        for need in gate
        if need.short
    ]
    if train < MIN_TRAINING_ROWS:
        lacking.append(f"data.train: {train:,} labelled examples; fine_tune needs {MIN_TRAINING_ROWS - train:,} more")
    graded = premises.rows.get("graded", 0)
    if use_case.is_graded and graded < LEAST_HUMAN_GRADES:
        lacking.append(f"data.graded: {graded} answers graded by people; a judge gates only with {LEAST_HUMAN_GRADES}")
    if not data.test:
        lacking.append("data.test: without an untouched split the winner's final figure is not clean")
    if not data.dev:
        lacking.append("data.dev: prompts, thresholds and checkpoints have nothing to be tuned on")
    wants_less = set(use_case.requirements.bounds) & REMEDIES["cache"]
    if wants_less and not data.traffic:
        lacking.append(
            "data.traffic: caching is judged on a sample of traffic with its real repetition (an endpoint's log will "
            "do, labels are not needed)"
        )
    if wants_less and not premises.rows.get("unlabelled", 0):
        lacking.append("data.unlabelled: distillation needs text for a teacher to label")
    return lacking


def _warnings(use_case: UseCase, premises: Premises, stages: tuple[StageAdvice, ...]) -> list[str]:
    train, warnings = premises.rows.get("train", 0), []
    possible = {each.stage: each.estimate_usd for each in stages if each.status == "possible"}
    if train < MIN_TRAINING_ROWS:
        warnings.append(f"{train:,} training examples, under {MIN_TRAINING_ROWS:,}: nothing will be fine-tuned")
    elif train < ADVISED_TRAINING_ROWS:
        warnings.append(
            f"{train:,} training examples: fine_tune can run, {ADVISED_TRAINING_ROWS:,} or more are advised"
        )
    if possible.get("prompt", 0.0) > use_case.budget_usd:
        warnings.append(f"budget_usd ${use_case.budget_usd:g} is below the estimate of the first stage")
    elif sum(possible.values()) > use_case.budget_usd:
        warnings.append(
            f"budget_usd ${use_case.budget_usd:g} does not cover every possible stage (${sum(possible.values()):.4g})"
        )
    judge = use_case.judge_model
    if judge and judge.kin in {m.kin for m in (*use_case.models.candidates, *filter(None, [use_case.models.base]))}:
        warnings.append(f"the judge {judge.uri} is of a family it judges ({judge.kin}), whose answers it may favour")
    if any(price.illustrative for price in premises.prices.values()):
        warnings.append("prices marked illustrative: every figure in dollars is an example, nobody charges it")
    if "distill" in possible:
        silent = [m.uri for m in use_case.models.candidates if not m.is_open and m.training_on_output is not True]
        warnings += [
            f"{uri} may not teach a student until training_on_output says its terms allow it" for uri in silent
        ]
    return warnings
