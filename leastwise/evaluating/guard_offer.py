"""Offering a guard: of the candidates a stage has tried, the best one behind the abstention score that dev rows speak for.

The threshold is chosen on dev rows (`leastwise.evidence.abstention`) and judged by the gate on others. A guard is tried only where what fails
is declining: the simplest candidate, without one, always comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.answering import answering, guarded
from leastwise.answering.answering import Payer
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.evaluation import GUARDED
from leastwise.evidence import abstention
from leastwise.evidence.abstention import Guard, ScoreComparison, ScoreName
from leastwise.metrics.answer import Answer
from leastwise.record import run_record
from leastwise.rows import gate_rows
from leastwise.use_case import Stage, UseCase

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.ladder.candidate import Candidate
    from leastwise.ladder.gate import Verdict

log = logging.getLogger(__name__)

LEAST_DEV_ROWS = 30


@dataclass(frozen=True)
class GuardOffer:
    """A guard that may be tried in a stage; dev rows are answered only when its turn comes."""

    stage: Stage

    @property
    def key(self) -> str:
        """Equal offers come to equal guards on the same data."""
        return content_key("guard", self.stage)


def offers(use_case: UseCase, stage: str) -> list[GuardOffer]:
    """The guard of a stage, where one may be tried."""
    return [GuardOffer(each) for each in GUARDED if each == stage] if use_case.offers_guards else []


def taken_up(
    work: Workspace, run_id: str, offer: GuardOffer, tried: Sequence[tuple[Candidate, Verdict]]
) -> Candidate | None:
    """The best tried candidate behind a guard, or None with the reason shown; every score's figures go to the stage's run."""
    candidate, verdict = tried[0]
    failed = set(verdict.named("FAIL"))
    if failed - {"ood_decline"} or "ood_decline" not in {*failed, *verdict.named("UNDECIDED")}:
        return _declined(offer.stage, f"what fails is not declining alone ({', '.join(sorted(failed)) or 'nothing'})")
    dev = work.tables.get("dev")
    if dev is None or len(dev) < LEAST_DEV_ROWS:
        return _declined(offer.stage, f"data.dev has fewer than {LEAST_DEV_ROWS} rows to choose a threshold on")
    wanted = work.use_case.guard
    inside = _scores(work, candidate, _sample(work, dev, "dev"))
    outside_rows = work.tables.get("out_of_scope_dev")
    outside = {} if outside_rows is None else _scores(work, candidate, _sample(work, outside_rows, "out of scope"))
    both = {name: scores for name, scores in inside.items() if outside_rows is None or name in outside}
    if not both:
        return _declined(offer.stage, "there is no score: no embedding of examples, and the model tells no confidence")
    compared = abstention.compare(both, outside, wanted.max_false_decline)
    chosen = abstention.best(compared)
    run_record.log_figures(work.client, run_id, _figures(compared))
    log.info(f"a guard is tried in {offer.stage}: {_told(chosen, len(inside[chosen.score]))}")
    return candidate.model_copy(update={"guard": _guard(work, chosen), "parent": candidate.key})


def _guard(work: Workspace, chosen: ScoreComparison) -> Guard:
    if chosen.score != "distance":
        return Guard(score=chosen.score, below=chosen.below)
    return Guard(
        score="distance",
        below=chosen.below,
        embedder=work.use_case.models.embedder,
        examples=work.tables.hashes["train"],
    )


def _sample(work: Workspace, rows: pd.DataFrame, salt: str) -> pd.DataFrame:
    return gate_rows.seeded(rows, content_key(salt)).head(work.use_case.guard.dev_rows)


def _scores(work: Workspace, candidate: Candidate, rows: pd.DataFrame) -> dict[ScoreName, list[float]]:
    """Every score that all of these rows have, distance first: it does not rest on the model's own view of itself."""
    found: dict[ScoreName, list[float]] = {}
    near = guarded.distance(work)
    if near is not None:
        found["distance"] = near.scores(list(rows["text"])).tolist()
    with answering.open_answerer(work, candidate, Payer(candidate.stage, "evaluation"), confident=True) as answerer:
        answers = [answer for answer in answerer.answer(rows) if answer.text is not None]
    for name in ("max_probability", "energy"):
        scores = _told_by_all(answers, name)
        if scores:
            found[name] = scores
    return found


def _told_by_all(answers: Sequence[Answer], name: ScoreName) -> list[float]:
    scores = [guarded.score_of(answer, name) for answer in answers]
    known = [score for score in scores if score is not None]
    return known if len(known) == len(scores) else []


def _figures(compared: Sequence[ScoreComparison]) -> dict[str, float]:
    figures = {}
    for each in compared:
        told = {
            "below": each.below,
            "false_decline": each.false_decline,
            "declined": each.declined,
            "auroc": each.auroc,
        }
        figures |= {f"guard.{each.score}.{name}": value for name, value in told.items() if value is not None}
    return figures


def _told(chosen: ScoreComparison, rows: int) -> str:
    if chosen.auroc is None or chosen.declined is None:
        return f"{chosen.score}, at most {chosen.false_decline:.1%} of {rows} dev rows declined (no data.out_of_scope_dev to choose by)"
    return (
        f"{chosen.score} declines {chosen.declined:.0%} of out-of-scope dev rows at {chosen.false_decline:.1%} false declines "
        f"(AUROC {chosen.auroc:.3f})"
    )


def _declined(stage: Stage, why: str) -> None:
    log.info(f"no guard in {stage}: {why}")
