"""Offering a guard: of the candidates a stage has tried, the best one behind the abstention score that dev rows speak
for.

The threshold is chosen on dev rows (`leastwise.evidence.abstention`) and judged by the gate on others. A guard is tried
only where what fails is declining: the simplest candidate, without one, always comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.guard import score_of
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.scorer import check_lost
from leastwise.evaluating.search.calibrating import calibrated_on_dev
from leastwise.evaluating.tries import Tries, Try
from leastwise.evidence import abstention
from leastwise.evidence.abstention import Guard, ScoreComparison, ScoreName
from leastwise.ladder.alphas import GUARDED
from leastwise.ladder.candidate import Candidate
from leastwise.record.stage_run import StageRun
from leastwise.rows import gate_rows
from leastwise.use_case import Stage, UseCase

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Scores = dict[ScoreName, list[float]]
ANSWERED_SCORES: tuple[ScoreName, ...] = ("max_probability", "energy")  # those that come with an answer
LEAST_DEV_ROWS = 30


@dataclass(frozen=True)
class GuardOffer:
    """A guard that may be tried in a stage; dev rows are answered only when its turn comes."""

    stage: Stage

    @property
    def key(self) -> str:
        """Equal offers come to equal guards on the same data."""
        return content_key("guard", self.stage)

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        """The best tried candidate behind a guard; every score's figures go to the stage's run.

        None while a try could not be measured: another might be the best of a rerun, and only one guard has a share of
        alpha. Raises Outage where more than 1% of the dev rows were lost.
        """
        if not tries.is_measured:
            return self._decline("not every candidate could be measured")
        best = min(tries.tried, key=lambda each: each.rank)
        reason = _not_declining_alone(best) or _too_few_dev_rows(work)
        if reason:
            return self._decline(reason)
        candidate = best.candidate
        if candidate.cascade is None:
            inside_rows = _sample(work, work.tables.need("dev"), "dev")
            candidate = calibrated_on_dev(work, self.stage, candidate, inside_rows, run)
        inside, outside = _dev_scores(work, candidate)
        if not inside:
            return self._decline("there is no score: no embedding of examples, and the model tells no confidence")
        comparisons = abstention.compare(inside, outside, work.use_case.guard.max_false_decline)
        chosen = abstention.best(comparisons)
        run.write(_figures(comparisons))
        log.info(f"a guard is tried in {self.stage}: {_in_words(chosen, len(inside[chosen.score]))}")
        return candidate.model_copy(update={"guard": _guard(work, chosen), "parent": best.candidate.key})

    def _decline(self, why: str) -> Candidate | None:
        """No candidate, and why."""
        log.info(f"no guard in {self.stage}: {why}")
        return None


def guards_offered(use_case: UseCase, stage: str) -> list[GuardOffer]:
    """The guard of a stage, where one may be tried."""
    return [GuardOffer(each) for each in GUARDED if each == stage] if use_case.offers_guards else []


def _not_declining_alone(best: Try) -> str:
    failed = set(best.verdict.named("FAIL"))
    open_ones = {*failed, *best.verdict.named("UNDECIDED")}
    if failed <= {"ood_decline"} <= open_ones:
        return ""
    return f"what fails is not declining alone ({', '.join(sorted(failed)) or 'nothing'})"


def _too_few_dev_rows(work: Workspace) -> str:
    dev = work.tables.get("dev")
    if dev is not None and len(dev) >= LEAST_DEV_ROWS:
        return ""
    return f"data.dev has fewer than {LEAST_DEV_ROWS} rows to choose a threshold on"


def _dev_scores(work: Workspace, candidate: Candidate) -> tuple[Scores, Scores]:
    """In-scope and out-of-scope dev rows by every score that both have; without the latter by every score."""
    inside = _scores(work, candidate, _sample(work, work.tables.need("dev"), "dev"))
    rows = work.tables.get("out_of_scope_dev")
    if rows is None:
        return inside, {}
    outside = _scores(work, candidate, _sample(work, rows, "out of scope"))
    return {name: scores for name, scores in inside.items() if name in outside}, outside


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
    return gate_rows.seeded(rows, salt).head(work.use_case.guard.dev_rows)


def _scores(work: Workspace, candidate: Candidate, rows: pd.DataFrame) -> Scores:
    """Every score that all of these rows have, distance first: it does not rest on the model's own view of itself."""
    scores: Scores = {}
    near = work.near
    if near is not None:
        scores["distance"] = near.scores(list(rows["text"])).tolist()
    with open_answerer(work, candidate, Payer(candidate.stage, "evaluation"), confident=True) as answerer:
        answers = [answer for answer in answerer.answer(rows) if answer.text is not None]
    check_lost(f"a guard for {candidate.model}", len(rows) - len(answers), len(rows))
    for name in ANSWERED_SCORES:
        of_all = [score for answer in answers if (score := score_of(answer, name)) is not None]
        if of_all and len(of_all) == len(answers):
            scores[name] = of_all
    return scores


def _figures(comparisons: Sequence[ScoreComparison]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for each in comparisons:
        measured = each.model_dump(include={"below", "false_decline", "declined", "auroc"}, exclude_none=True)
        figures |= {f"guard.{each.score}.{name}": float(value) for name, value in measured.items()}
    return figures


def _in_words(chosen: ScoreComparison, rows: int) -> str:
    if chosen.auroc is None or chosen.declined is None:
        declined = f"at most {chosen.false_decline:.1%} of {rows} dev rows declined"
        return f"{chosen.score}, {declined} (no data.out_of_scope_dev to choose by)"
    return (
        f"{chosen.score} declines {chosen.declined:.0%} of out-of-scope dev rows at {chosen.false_decline:.1%} false "
        f"declines (AUROC {chosen.auroc:.3f})"
    )
