"""Offering a cascade: whether a cheap candidate before a dear one is cheaper, at a threshold that holds quality on dev.

The threshold is chosen on dev rows (`leastwise.evidence.cascade_threshold`) and judged by the gate on others. Nothing is offered where the cheap
candidate tells no confidence, where dev has no rows, or where the cascade would not be cheaper.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering import answering
from leastwise.answering.answering import Payer
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence.cascade_threshold import choose_threshold
from leastwise.ladder.candidate import Candidate, Cascade
from leastwise.metrics.answer import Answer

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.use_case import Stage

log = logging.getLogger(__name__)

MOST_DEV_ROWS = 200
LEAST_DEV_ROWS = 30


@dataclass(frozen=True)
class Offer:
    """A cascade that may be tried in a stage; its threshold is chosen, and dev rows are paid for, only when its turn comes."""

    stage: Stage
    first: Candidate
    then: Candidate

    @property
    def key(self) -> str:
        """Equal offers come to equal cascades on the same data."""
        return content_key("cascade", self.first.key, self.then.key)


def taken_up(work: Workspace, offer: Offer) -> Candidate | None:
    """The cascade of an offer, or None with the reason shown; answering dev rows is paid by its stage."""
    stage, first, then = offer.stage, offer.first, offer.then
    dev = work.tables.get("dev")
    if not work.use_case.offers_cascades or dev is None or len(dev) < LEAST_DEV_ROWS:
        return None
    rows = dev.head(MOST_DEV_ROWS)
    cheap = _answers(work, first, rows, stage)
    if any(answer.text is not None and answer.confidence is None for answer in cheap):
        return _declined(stage, f"{first.model} tells no confidence")
    dear = _answers(work, then, rows, stage)
    known = [at for at in range(len(rows)) if cheap[at].text is not None and dear[at].text is not None]
    if len(known) < LEAST_DEV_ROWS:
        return _declined(stage, f"{len(rows) - len(known)} of {len(rows)} dev rows were lost")
    scores = [_qualities(work, rows.iloc[known], [each[at] for at in known]) for each in (cheap, dear)]
    quality = work.use_case.requirements.quality
    alone = float(np.mean(scores[1]))
    wanted = min(quality.bound, alone) if quality else alone
    chosen = choose_threshold([cheap[at].confidence or 0.0 for at in known], *scores, wanted)
    usd_cheap, usd_dear = (float(np.mean([each[at].usd for at in known])) for each in (cheap, dear))
    usd = usd_cheap + chosen.escalated_share * usd_dear
    told = f"quality {chosen.quality:.3f} on dev at {chosen.escalated_share:.0%} escalated, ${1000 * usd:.4g} against ${1000 * usd_dear:.4g} per 1,000"
    if chosen.escalated_share == 0:
        return _declined(stage, f"{first.model} alone holds quality on dev ({chosen.quality:.3f})")
    if usd >= usd_dear:
        return _declined(stage, f"it is not cheaper ({told})")
    log.info(f"a cascade {first.model} → {then.model} is tried in {stage}: {told}")
    return then.model_copy(
        update={"stage": stage, "cascade": Cascade(first=first, below=chosen.below), "parent": then.key}
    )


def _answers(work: Workspace, candidate: Candidate, rows: pd.DataFrame, stage: Stage) -> list[Answer]:
    with answering.open_answerer(work, candidate, Payer(stage, "evaluation"), confident=True) as answerer:
        return list(answerer.answer(rows))


def _qualities(work: Workspace, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
    scores = ExactScorer(work.use_case.task).score(rows, answers)
    return [score.quality for score in scores if score is not None]


def _declined(stage: Stage, why: str) -> None:
    log.info(f"no cascade in {stage}: {why}")
