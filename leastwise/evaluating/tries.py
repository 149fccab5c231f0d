"""The tries of a stage: what became of its candidates, and offers of one more that depends on what was tried.

It measures nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from leastwise.answering.workspace import Workspace
from leastwise.ladder import Verdict
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage

BEST_FIRST = ("PASS", "ERROR", "UNDECIDED", "FAIL")  # without a PASS an ERROR is the stage's (rule 4)


@dataclass(frozen=True)
class Try:
    """A candidate as it was measured in a stage."""

    candidate: Candidate
    verdict: Verdict
    measured: Measured

    @property
    def rank(self) -> tuple[int, int, float, float]:
        """Best first: verdict, failed requirements, then surely better quality, then better quality by the estimate."""
        quality = self.measured.evaluation.measurements.get("quality")
        sure, likely = (quality.lower, quality.estimate) if quality else (0.0, 0.0)
        return BEST_FIRST.index(self.verdict.outcome), len(self.verdict.named("FAIL")), -sure, -likely

    @property
    def usd(self) -> float:
        """What asking came to, at the price of the call that bought each answer, and grading."""
        totals = self.measured.totals
        beside = totals.get("judge.usd", 0.0) + totals.get("usd.unjudged", 0.0)
        return sum(row["usd"] for row in self.measured.rows) + beside


@dataclass
class Tries:
    """What became of a stage's candidates so far: tried, left out since a provider cannot take them, or lost.

    `lost` is what an outage kept from being tried at all, in words; `left_out` the reasons of the others.
    """

    tried: list[Try] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        """Whether one surely passed: then no other can change that."""
        return any(each.verdict.outcome == "PASS" for each in self.tried)

    @property
    def is_measured(self) -> bool:
        """Whether everything so far could be measured, so that what depends on it may be weighed."""
        return bool(self.tried) and not self.lost and all(each.verdict.outcome != "ERROR" for each in self.tried)

    def best(self, otherwise: Try) -> Try:
        """The try that stands for the stage.

        Without a PASS whatever was lost makes it an ERROR, since no evidence must not buy a stage (rule 4); where
        nothing could be asked at all it is `otherwise`, as an ERROR too.
        """
        best = min(self.tried, key=lambda each: each.rank, default=otherwise)
        why = [*self.lost]
        if not (self.tried or self.lost):
            why += [f"no model could be asked in this stage: {'; '.join(self.left_out) or 'it has no candidate'}"]
        if best.verdict.outcome == "PASS" or not why:
            return best
        problem = "; ".join([*([best.measured.evaluation.error] if best.measured.evaluation.error else []), *why])
        evaluation = best.measured.evaluation.model_copy(update={"error": problem})
        verdict = best.verdict.model_copy(update={"outcome": "ERROR", "reason": problem})
        return replace(best, verdict=verdict, measured=replace(best.measured, evaluation=evaluation))


class Offer(Protocol):
    """A candidate that may be tried when its turn comes; nothing is paid for it before."""

    @property
    def stage(self) -> Stage:
        """The stage it is offered in."""
        ...

    @property
    def key(self) -> str:
        """Equal offers come to equal candidates on the same data."""
        ...

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        """The candidate, if it is worth trying after what was tried; None with the reason said.

        Raises Outage where what it has to be weighed by was lost, CannotBeAsked where a provider cannot take it.
        """
        ...
