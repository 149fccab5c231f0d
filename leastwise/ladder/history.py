"""The history of a climb: what each stage came to, who is the best candidate so far, and who may teach.

It reads no log and decides no step (see `leastwise.ladder.next_step`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leastwise.ladder.gate import Evaluation, Verdict, plain_outcome
from leastwise.part import Result
from leastwise.use_case import OnUndecided, Stage, UseCase

Resolution = Literal["pass", "climb", "stop", "ask"]
ClimbOutcome = Stage | Literal["reference", "none", "undecided", "budget", "rejected", "error"]
"""How a climb ends (rule 10): a stage is the one that passed."""


class Record(Result):
    """One row of the history: a stage that was evaluated or skipped, or the no-LLM reference."""

    stage: Stage | Literal["reference"]
    skipped: str | None = Field(None, description="Why it was skipped; a skip is never evidence.")
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    resolution: Resolution | None = Field(None, description="How UNDECIDED was resolved, as logged.")
    by_person: bool = Field(False, description="Whether a person resolved it.")
    open_weights: bool = Field(False, description="Whether the candidate's weights can be served by oneself.")
    may_teach: bool = Field(True, description="Whether the terms of its models allow training on its answers.")
    usd_per_1k: float = Field(float("inf"), description="For choosing the cheapest among equals.")

    @property
    def passed(self) -> bool:
        """PASS, or UNDECIDED that was resolved to count as one."""
        return self.verdict is not None and (self.verdict.outcome == "PASS" or self.resolution == "pass")

    @property
    def is_sure(self) -> bool:
        """Whether the gate decided it: an estimate, or a person's word, is not the gate's."""
        return self.verdict is not None and self.verdict.outcome in ("PASS", "FAIL")

    @property
    def possibly_failing(self) -> frozenset[str]:
        """Requirements that failed or were still open when the evaluation stopped."""
        if self.verdict is None:
            return frozenset()
        return frozenset(self.verdict.named("FAIL") + self.verdict.named("UNDECIDED"))

    def passes(self, *names: str) -> bool:
        """Whether each of these requirements was asked for and surely met, or not asked for."""
        return self.verdict is not None and all(
            v.outcome == "PASS" for v in self.verdict.requirements if v.name in names
        )

    @property
    def quality_lower(self) -> float:
        """Lower end of the interval of quality, 0 where it was not measured."""
        got = self.evaluation.measurements.get("quality") if self.evaluation else None
        return got.lower if got else 0.0


def evaluated(history: Sequence[Record]) -> tuple[Record, ...]:
    """The stages that were measured, without skips and without the reference."""
    return tuple(r for r in history if r.stage != "reference" and r.skipped is None)


def best(history: Sequence[Record]) -> Record | None:
    """The parent of the next stage: fewest failed requirements, then highest lower bound of quality, then cheapest."""
    return min(
        evaluated(history),
        key=lambda r: (len(r.verdict.named("FAIL")) if r.verdict else 99, -r.quality_lower, r.usd_per_1k),
        default=None,
    )


def teacher(history: Sequence[Record]) -> Record | None:
    """Who may teach a student: the highest lower bound of quality among the candidates that surely pass quality and
    whose terms allow it.

    A cache answers as what is behind it, and is measured on traffic with its repetition: its quality is no teacher's.
    """
    passing = [r for r in evaluated(history) if r.passes("quality") and r.may_teach and r.stage != "cache"]
    return max(passing, key=lambda r: r.quality_lower, default=None)


def resolve(verdict: Verdict, evaluation: Evaluation, use_case: UseCase) -> Resolution | None:
    """How an UNDECIDED verdict is resolved (rule 5); None where the verdict is sure or an error, or of a try that was
    parked, since another passed.
    """
    if verdict.outcome != "UNDECIDED" or evaluation.parked:
        return None
    if use_case.on_undecided != "estimate":
        return _POLICY[use_case.on_undecided]
    plain = plain_outcome(evaluation, use_case.gate_requirements)
    return "pass" if plain == "PASS" else "climb"


_POLICY: dict[OnUndecided, Resolution] = {"climb": "climb", "stop": "stop", "ask": "ask"}
