"""The tries of a stage race: one that its look budget leaves undecided is parked, the next begins, the first PASS wins.

Whose turn it is says `leastwise.ladder.race.schedule`; nothing is judged here. A parked try holds nothing open, neither
a model server nor a connection, and is gone on with only while none has passed. What is searched for on dev races as
any try does, and is searched for when its first turn comes. Any other offer is taken up once all that is listed before
it was measured to its end: it is weighed by those, and a cascade's dev rows cost more than their rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from leastwise.answering.answerer import Answerer, Outage
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.engines.watch import together
from leastwise.errors import CannotBeAsked
from leastwise.evaluating.evaluation import Measuring
from leastwise.evaluating.forgetting import exam_of, forgetting_figures
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import Scorer
from leastwise.evaluating.search.offer import SearchOffer
from leastwise.evaluating.tries import Offer, Tries, Try
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.ladder.race.schedule import Standing, Turn, next_turn
from leastwise.progress import EvaluationProgress
from leastwise.record.review.background import held
from leastwise.record.stage_run import StageRun
from leastwise.stores.ledger import Machine

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Resumable:
    """A candidate while it is measured: it is left after a look with nothing held open, and gone on with as if it had
    never been left. `answering` opens who answers for it; the `machine` it runs on is kept paid.
    """

    work: Workspace
    candidate: Candidate
    answering: Callable[[], AbstractContextManager[Answerer]]
    machine: Machine | None = None
    alphas: Alphas | None = None
    usd: float = 0.0
    is_over: bool = False
    measured: Measured | None = None
    _measuring: Measuring | None = None
    _scorer: Scorer | None = None
    _figures: dict[str, float] = field(default_factory=dict)

    @property
    def standing(self) -> Standing:
        """How far it is, for whoever decides whose turn is next."""
        return replace(self._measuring.standing, usd=self.usd) if self._measuring else Standing(usd=self.usd)

    def go_on(self, is_enough: Callable[[], bool] = lambda: False) -> Measured:
        """Measure on to its end, or until after a look it `is_enough`: then what there is by then is parked."""
        work, stage = self.work, self.candidate.stage
        with self.answering() as answerer, open_scorer(work, stage, self._scorer) as scorer, held():
            measuring = self._measuring or self._begun(answerer, scorer)
            self._measuring, self._scorer = measuring, scorer
            measuring.go_on(answerer, is_enough)
            self.is_over, now = measuring.is_over, answerer.figures()
            self._figures |= now | together(self._figures, now)
            parked = f"parked after {self.standing.examples:,} examples: another try passed"
            measured = measuring.measured("" if self.is_over else parked)
        more = forgetting_figures(work, self.candidate) | self._figures
        self.measured = replace(measured, totals=measured.totals | more)
        return self.measured

    def _begun(self, answerer: Answerer, scorer: Scorer) -> Measuring:
        work, candidate = self.work, self.candidate
        inputs = Inputs.of(work.question, candidate.stage, exam_of(work, candidate))
        alphas = self.alphas or work.alphas
        return Measuring(work.use_case, candidate, answerer, inputs, alphas, scorer, self._on_look)

    def _on_look(self, progress: EvaluationProgress) -> None:
        if self.machine:
            self.machine.keep_paid()
        self.work.display.show_evaluation(progress)


@dataclass(eq=False)
class Sought:
    """A candidate that is yet to be searched for; nothing is paid before its turn."""

    offer: SearchOffer
    usd: float
    measured: None = None

    @property
    def candidate(self) -> Candidate:
        """What the search begins with."""
        return self.offer.start

    @property
    def standing(self) -> Standing:
        """As any try stands before its first example."""
        return Standing(usd=self.usd)


Entrant = Resumable | Sought


@dataclass(frozen=True)
class Race:
    """The race of a stage: `start` makes a candidate ready to be measured, `conclude` logs what was measured of it."""

    work: Workspace
    run: StageRun
    start: Callable[[Candidate], Resumable]
    conclude: Callable[[Candidate, Measured], Try]

    def of(self, listed: Sequence[Candidate | Offer]) -> Tries:
        """What became of all that is listed, up to the first PASS.

        After an ERROR the others are tried all the same: each has its own share of alpha, so a PASS is one.
        """
        tries = Tries()
        for group in _groups(listed):
            self._race([each for one in group for each in self._entering(one, tries)], tries)
            if tries.has_passed:
                break
        return tries

    def _entering(self, listed: Candidate | Offer, tries: Tries) -> list[Entrant]:
        """Who enters the race for what is listed: nobody for an offer that is not worth it."""
        if isinstance(listed, SearchOffer):
            return [Sought(listed, self.work.catalogue.worst_case_usd(listed.start))]
        candidate = listed if isinstance(listed, Candidate) else self._taken_up(listed, tries)
        return [self.start(candidate)] if candidate else []

    def _race(self, live: list[Entrant], tries: Tries) -> None:
        last: Resumable | None = None
        while live and not tries.has_passed:
            turns = _Turns(live, last)
            entrant = turns.entrant
            if last in live:
                self._say_parked(last, entrant)
            if isinstance(entrant, Sought):
                found = self._taken_up(entrant.offer, tries)
                live[turns.place : turns.place + 1] = [self.start(found)] if found else []
                last = None
                continue
            last, is_left = entrant, True
            with self._counted(tries, in_words(entrant.candidate), entrant.candidate.key):
                measured = entrant.go_on(turns.are_over)
                is_left = False
                if entrant.is_over:
                    tries.tried.append(self.conclude(entrant.candidate, measured))
            if is_left or entrant.is_over:
                live.remove(entrant)
        for parked in live:
            if isinstance(parked, Resumable) and parked.measured:
                tries.tried.append(self.conclude(parked.candidate, parked.measured))

    def _say_parked(self, parked: Resumable, entrant: Entrant) -> None:
        begun = "gone on with" if entrant.measured else "begun"
        after = f"after {parked.standing.examples:,} examples"
        left, now = in_words(parked.candidate), in_words(entrant.candidate)
        log.info(f"{self.run.stage}: {left} is parked {after}, undecided; {now} is {begun}")

    def _taken_up(self, offer: Offer, tries: Tries) -> Candidate | None:
        with self._counted(tries, f"an offer in {offer.stage}", offer.key):
            return offer.take_up(self.work, self.run, tries)
        return None  # left out or lost

    @contextmanager
    def _counted(self, tries: Tries, what: str, key: str) -> Iterator[None]:
        """Count what a provider cannot take as left out, in a run of its own, and what an outage took as lost."""
        work, run = self.work, self.run
        try:
            yield
        except CannotBeAsked as why:
            log.info(f"{run.stage}: {what} is left out: {why}")
            tries.left_out.append(f"{what}: {why}")
            child = work.run.open_stage(run.stage, content_key(key, work.question.key), under=run.id)
            child.log_left_out(f"{run.stage} · {what} · SKIPPED {why}", str(why))
        except Outage as why:
            log.info(f"{run.stage}: {why}")
            tries.lost.append(str(why))


class _Turns:
    """The turns that one of the tries has in a row: nothing is closed and opened again between them."""

    def __init__(self, live: Sequence[Entrant], last: Entrant | None) -> None:
        self._live = live
        self._turn = self._next(last)
        self.place = self._turn.entrant
        self.entrant = live[self.place]

    def _next(self, last: Entrant | None) -> Turn:
        place = next((at for at, each in enumerate(self._live) if each is last), None)
        return next_turn([each.standing for each in self._live], place)

    def are_over(self) -> bool:
        """Whether it is to be parked now, since it is another's turn."""
        if not self._turn.is_over(self.entrant.standing):
            return False
        self._turn = self._next(self.entrant)
        return self._live[self._turn.entrant] is not self.entrant


def _groups(listed: Sequence[Candidate | Offer]) -> list[list[Candidate | Offer]]:
    """What races together: an offer that has to wait begins a group of its own, with the candidates listed after it."""
    groups: list[list[Candidate | Offer]] = []
    for each in listed:
        if not groups or not isinstance(each, Candidate | SearchOffer):
            groups.append([])
        groups[-1].append(each)
    return groups


def in_words(candidate: Candidate) -> str:
    """What tells a try from the others of its stage."""
    if candidate.guard:
        plain = candidate.model_copy(update={"guard": None})
        return f"{in_words(plain)}, guarded by {candidate.guard.score}"
    if candidate.cascade:
        return f"{candidate.cascade.first.model} → {candidate.model}"
    if candidate.prompt is None:
        return candidate.model
    return f"{candidate.model} {'tuned' if candidate.weights else candidate.prompt.how}"
