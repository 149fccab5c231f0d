"""A search offered to a stage: made when its turn comes, and one candidate of it is tried at the gate.

What it found is logged in the stage's run; the gate decides whether that is enough.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from leastwise.answering.answerer import Outage
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.search import report
from leastwise.evaluating.search.report import SearchReport
from leastwise.evaluating.search.search import search
from leastwise.evaluating.tries import Tries
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.money.search_cost import search_usd
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage, UseCase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchOffer:
    """The best prompt of one model, from `start` on; `share` is its part of what the stage's search may cost."""

    stage: Stage
    start: Candidate
    share: float = 1.0

    @property
    def key(self) -> str:
        """Equal offers come to equal candidates on the same data."""
        return content_key("search", self.start.key)

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        """What the search came to, its steps in the stage's run.

        Raises Outage where the model as it is set up is not fit to answer, with what to change: that is an ERROR, and
        no evidence of the model.
        """
        found = search(work, self.stage, self.start, self.share * search_usd(work.use_case, self.stage))
        run.log_text(found.as_markdown(), f"search/{found.start}.md")
        run.log_text(found.model_dump_json(indent=2), f"search/{found.start}.json")
        run.write(found.figures())
        if found.candidate is None:
            raise Outage(found.problem)
        log.info(f"{self.stage}: {found.words(_bound(work.use_case))}")
        return found.candidate


def searched(work: Workspace, candidate: Candidate) -> SearchReport | None:
    """The search that came to this candidate; None where none did."""
    return report.kept(work.home, candidate.key)


def with_search(work: Workspace, candidate: Candidate, measured: Measured) -> Measured:
    """What was measured, and in its finding what was searched through before."""
    found = searched(work, candidate)
    if found is None:
        return measured
    words = "; ".join(filter(None, [measured.evaluation.finding, found.words(_bound(work.use_case))]))
    evaluation = measured.evaluation.model_copy(update={"finding": words})
    return Measured(evaluation, measured.totals, measured.rows, measured.grades, measured.intervals)


def search_note(work: Workspace, candidate: Candidate) -> str:
    """The search as a part of a run's description; empty where there was none."""
    found = searched(work, candidate)
    return f"\n\n**Searched on dev**: {found.words(None)}\n\n{found.as_markdown()}" if found else ""


def _bound(use_case: UseCase) -> float | None:
    return use_case.requirements.quality.bound if use_case.requirements.quality else None
