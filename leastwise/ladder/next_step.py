"""The ladder: which step comes next, from a use case and the history of what was logged.

A pure fold. It runs no stage, reads no clock and asks nobody: what it needs to know beside the use case and the history
(rows, estimates, spend, answers people gave) is handed in as a `Situation`, so the same history always gives the same
next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leastwise.ladder.history import ClimbOutcome, Record, best
from leastwise.ladder.needs import REMEDIES, Situation, lacks
from leastwise.part import Part
from leastwise.use_case import Stage, UseCase

LEAVE = "approvals."  # how the reason of a skip begins that rests on leave


class Step(Part):
    """What to do next. `ask` wants a person's answer first: leave for a stage, or how to resolve UNDECIDED."""

    action: Literal["run", "skip", "ask", "end"]
    reason: str
    stage: Stage | None = None
    outcome: ClimbOutcome | None = Field(None, description="With action `end` only.")
    question: Literal["leave", "undecided"] = Field("leave", description="With action `ask` only: what is asked.")
    sure: bool = Field(True, description="False: it ends at a stage that the gate was not sure of.")
    accepted: bool = Field(False, description="Whether a person took what the gate was not sure of.")


def next_step(use_case: UseCase, history: Sequence[Record], situation: Situation | None = None) -> Step:
    """The next step of a climb: run or skip a stage, ask a person, or end with an outcome (rule 10).

    It climbs only on failure (rule 1), and not at all where the reference is enough and `reference: stop` (rule 9).
    The ladder is walked from its foot whatever order things were logged in, so that a stage somebody ran on its own
    neither hides a lower PASS nor lets the climb start above it. Of two records of a stage the later one counts. The
    same history gives the same step (rule 3).
    """
    now = situation or Situation()
    recorded = {record.stage: record for record in history}
    reference = recorded.get("reference")
    if reference and reference.passed and use_case.reference == "stop":
        return _won("reference", reference, "the no-LLM reference meets every requirement")
    below: list[Record] = []
    for stage in use_case.reachable_stages:
        record = recorded.get(stage)
        if record is None:
            return _consider(use_case, stage, below, now)
        if (record.skipped or "").startswith(LEAVE):  # leave may be given later, and asks no other question
            step = _consider(use_case, stage, below, now)
            if step.action != "skip" or step.reason != record.skipped:
                return step
        halted = _halt(stage, record, now)
        if halted:
            return halted
        below.append(record)
    return Step(action="end", outcome="none", reason=_nearest_miss(below))


def _won(outcome: Stage | Literal["reference"], record: Record, reason: str) -> Step:
    """The end of a climb at what passed, in words that never call it sure where the gate was not."""
    stage = None if outcome == "reference" else outcome
    if not record.is_sure:
        by = "a person's word" if record.by_person else "the plain estimate"
        undecided = record.verdict.reason if record.verdict else reason
        reason = f"passed by {by}, not surely: {undecided}"
    return Step(
        action="end", outcome=outcome, stage=stage, reason=reason, sure=record.is_sure, accepted=record.by_person
    )


def _halt(stage: Stage, record: Record, now: Situation) -> Step | None:
    """The end of a climb (rules 1, 4) or a question to a person (rule 5) where this record calls for it, else None."""
    if record.skipped is not None:
        return None
    if record.verdict is None:
        return Step(action="end", outcome="error", stage=stage, reason=f"{stage} was logged without an evaluation")
    if record.verdict.outcome == "ERROR":
        return Step(action="end", outcome="error", stage=stage, reason=record.verdict.reason)
    if record.passed:
        return _won(stage, record, record.verdict.reason)
    if record.verdict.outcome == "UNDECIDED" and record.resolution != "climb":
        action: Literal["ask", "end"] = "ask" if record.resolution == "ask" and now.can_ask else "end"
        outcome: ClimbOutcome | None = "undecided" if action == "end" else None
        why = record.verdict.reason
        return Step(action=action, outcome=outcome, stage=stage, reason=why, question="undecided")
    return None


def _consider(use_case: UseCase, stage: Stage, below: Sequence[Record], now: Situation) -> Step:
    """Skip a stage with the reason (rule 2), or see about leave and money for it."""
    why = _cannot(use_case, stage, below, now)
    if why:
        return Step(action="skip", stage=stage, reason=why)
    step, advice = _afford(use_case, stage, now), _advice(below)
    return step.model_copy(update={"reason": f"{step.reason}; but first: {advice}"}) if advice else step


def _advice(below: Sequence[Record]) -> str:
    """What would help before a dearer stage does: what most wrong answers of the last measured one have in common."""
    last = next((record for record in reversed(below) if record.evaluation), None)
    finding = last.evaluation.finding if last and last.evaluation else ""
    return f"in {last.stage}, {finding}" if last and finding else ""


def _cannot(use_case: UseCase, stage: Stage, history: Sequence[Record], now: Situation) -> str | None:
    """Why a stage is skipped, or None."""
    if use_case.approvals.get(stage) == "never":
        return f"{LEAVE}{stage} is never"
    parent = best(history)
    if parent and not REMEDIES[stage] & parent.possibly_failing:
        return f"cannot remedy what fails: {', '.join(sorted(parent.possibly_failing)) or 'nothing'}"
    return lacks(use_case, stage, history, now)


def short_of_money(use_case: UseCase, stage: Stage, now: Situation) -> str | None:
    """Why a stage could pass a budget, and so does not start (rule 6); None where it cannot."""
    estimate = now.estimates.get(stage, 0.0)
    left = min(use_case.budget_usd - now.usd_spent, use_case.budget_usd_per_month - now.usd_spent_this_month)
    if estimate <= left:
        return None
    return (
        f"{stage} may cost ${estimate:.4g}, ${max(left, 0):.4g} is left of budget_usd {use_case.budget_usd:g} and "
        f"budget_usd_per_month {use_case.budget_usd_per_month:g}; raise the one that binds"
    )


def _afford(use_case: UseCase, stage: Stage, now: Situation) -> Step:
    """Money (rule 6) and leave (rule 7) for a stage that could help: run it, ask, or end as rejected or budget."""
    estimate = now.estimates.get(stage, 0.0)
    if short := short_of_money(use_case, stage, now):
        return Step(action="end", outcome="budget", stage=stage, reason=short)
    if use_case.approval(stage, estimate) == "granted" or now.answers.get(stage) == "granted":
        return Step(action="run", stage=stage, reason=f"estimated at most ${estimate:.4g}")
    if now.can_ask and stage not in now.answers:
        return Step(action="ask", stage=stage, reason=f"{stage} needs approval; estimated at most ${estimate:.4g}")
    why = f"{stage} needs approval and nobody granted it; set approvals: {{{stage}: granted}}, or never to skip it"
    return Step(action="end", outcome="rejected", stage=stage, reason=why)


def _nearest_miss(history: Sequence[Record]) -> str:
    nearest = best(history)
    if nearest is None or nearest.verdict is None:
        return "no stage could be run; see the reasons of the skipped ones"
    return f"nearest miss is {nearest.stage}: {nearest.verdict.reason}"
