"""The tries of a stage: candidates measured one after another, and offers of one more that depends on what was tried.

It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leastwise.answering.workspace import Workspace
from leastwise.ladder import Verdict
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage

BEST_FIRST = ("PASS", "UNDECIDED", "FAIL", "ERROR")


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
        return sum(row["usd"] for row in self.measured.rows) + self.measured.totals.get("judge.usd", 0.0)


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

    def take_up(self, work: Workspace, run: StageRun, tried: Sequence[Try]) -> Candidate | None:
        """The candidate, if it is worth trying after what was tried; None with the reason said."""
        ...
