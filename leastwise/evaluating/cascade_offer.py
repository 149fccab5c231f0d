"""Offering a cascade: whether a cheap candidate before a dear one is cheaper, at a threshold that holds quality on dev.

The threshold is chosen on dev rows (`leastwise.evidence.cascade_threshold`) and judged by the gate on others. Nothing
is offered where the cheap candidate tells no confidence, where dev has no rows, or where the cascade would not be
cheaper.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering.answerer import Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.scorer import ExactScorer, check_lost
from leastwise.evaluating.search.calibrating import calibrated_on_dev
from leastwise.evaluating.tries import Offer, Tries
from leastwise.evidence.cascade_threshold import Threshold, choose_threshold
from leastwise.ladder.candidate import Candidate, Cascade
from leastwise.metrics.answer import Answer
from leastwise.money.worst_cost import CASCADE_DEV_ROWS
from leastwise.record.handover.before import as_before
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

LEAST_DEV_ROWS = 30


@dataclass(frozen=True)
class CascadeOffer:
    """A cascade that may be tried in a stage; its threshold is chosen, and dev rows are paid for, only when its turn
    comes.
    """

    stage: Stage
    first: Candidate
    then: Candidate

    @property
    def key(self) -> str:
        """Equal offers come to equal cascades on the same data."""
        return content_key("cascade", self.first.key, self.then.key)

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        """The cascade, whatever was tried before; answering dev rows is paid by its stage.

        Raises Outage where more than 1% of the dev rows were lost.
        """
        dev = work.tables.get("dev")
        if not work.use_case.offers_cascades or dev is None or len(dev) < LEAST_DEV_ROWS:
            return None
        rows = dev.head(CASCADE_DEV_ROWS)
        first = calibrated_on_dev(work, self.stage, self.first, rows, run)
        cheap = self._answers(work, first, rows)
        if any(answer.text is not None and answer.confidence is None for answer in cheap):
            return self._decline(f"{self.first.model} tells no confidence")
        dear = self._answers(work, self.then, rows)
        both = [at for at in range(len(rows)) if cheap[at].text is not None and dear[at].text is not None]
        check_lost(f"the cascade {self.first.model} → {self.then.model}", len(rows) - len(both), len(rows))
        return self._worth_it(work, first, rows.iloc[both], [cheap[at] for at in both], [dear[at] for at in both])

    def _worth_it(
        self, work: Workspace, first: Candidate, rows: pd.DataFrame, cheap: Sequence[Answer], dear: Sequence[Answer]
    ) -> Candidate | None:
        chosen = _threshold(work, rows, cheap, dear)
        usd_cheap, usd_dear = (float(np.mean([each.usd for each in answers])) for answers in (cheap, dear))
        usd = usd_cheap + chosen.escalated_share * usd_dear
        words = (
            f"quality {chosen.quality:.3f} on dev at {chosen.escalated_share:.0%} escalated, ${1000 * usd:.4g} against "
            f"${1000 * usd_dear:.4g} per 1,000"
        )
        if chosen.escalated_share == 0:
            return self._decline(f"{self.first.model} alone holds quality on dev ({chosen.quality:.3f})")
        if usd >= usd_dear:
            return self._decline(f"it is not cheaper ({words})")
        log.info(f"a cascade {self.first.model} → {self.then.model} is tried in {self.stage}: {words}")
        cascade = Cascade(first=first, below=chosen.below)
        return self.then.model_copy(update={"stage": self.stage, "cascade": cascade, "parent": self.then.key})

    def _answers(self, work: Workspace, candidate: Candidate, rows: pd.DataFrame) -> list[Answer]:
        with open_answerer(work, candidate, Payer(self.stage, "evaluation"), confident=True) as answerer:
            return answerer.answer(rows)

    def _decline(self, why: str) -> Candidate | None:
        """No candidate, and why."""
        log.info(f"no cascade in {self.stage}: {why}")
        return None


def key_before(each: Candidate | Offer, home: Path) -> str:
    """The key of a candidate, or of an offer of one, while candidates were named by paths of this machine."""
    if isinstance(each, CascadeOffer):
        return replace(each, first=as_before(each.first, home), then=as_before(each.then, home)).key
    return as_before(each, home).key if isinstance(each, Candidate) else each.key


def at_its_engine(each: Candidate | Offer, work: Workspace) -> Candidate | Offer:
    """A candidate, or an offer of one, by the engines that this machine serves it with."""
    if isinstance(each, CascadeOffer):
        return replace(each, first=work.at_its_engine(each.first), then=work.at_its_engine(each.then))
    return work.at_its_engine(each) if isinstance(each, Candidate) else each


def _threshold(work: Workspace, rows: pd.DataFrame, cheap: Sequence[Answer], dear: Sequence[Answer]) -> Threshold:
    """The threshold that holds on dev what quality is required, or what the dear one reaches where that is less."""
    cheap_scores, dear_scores = (_qualities(work, rows, answers) for answers in (cheap, dear))
    quality, alone = work.use_case.requirements.quality, float(np.mean(dear_scores))
    least = min(quality.bound, alone) if quality else alone
    return choose_threshold([answer.confidence or 0.0 for answer in cheap], cheap_scores, dear_scores, least)


def _qualities(work: Workspace, rows: pd.DataFrame, answers: Sequence[Answer]) -> list[float]:
    scores = ExactScorer(work.use_case.task).score(rows, answers)
    return [score.quality for score in scores if score is not None]
