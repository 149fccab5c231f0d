"""The search itself: a fit model, then axis after axis by successive halving on the same dev rows, paired.

On each axis the better half goes on to twice as many rows (`leastwise.evidence.halving`), the last two at least to all;
taken is the cheapest within one standard error of the best of all that were asked on all rows so far, so that no axis
gives away what another gained; last, its instruction may be rewritten (`reflection`). The same answers always come to
the same candidate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import CannotBeAsked
from leastwise.evaluating.scorer import check_lost
from leastwise.evaluating.search import fitness, report
from leastwise.evaluating.search.axes import AXES
from leastwise.evaluating.search.axis import Axis, Variant
from leastwise.evaluating.search.dev_answers import DevAnswers, TooDear
from leastwise.evaluating.search.dropped_settings import dropped_by, has_temperature, samples
from leastwise.evaluating.search.reflection.record import AXIS, Reflected
from leastwise.evaluating.search.reflection.reflecting import Reflection
from leastwise.evaluating.search.report import NotTried, RetrievalStep, SearchReport, Step
from leastwise.evaluating.search.vote import neighbours_vote
from leastwise.evidence.choosing import one_standard_error
from leastwise.evidence.choosing.calibration import CalibrationError
from leastwise.evidence.choosing.one_standard_error import cheapest_within_one_error, interval, paired
from leastwise.evidence.halving import better_half, schedule
from leastwise.ladder.candidate import Candidate
from leastwise.rows.gate_rows import seeded
from leastwise.use_case import Stage

log = logging.getLogger(__name__)

FIRST_ROWS = 25  # of dev, on which every variant of an axis is asked
LEAST_FINALISTS = 2  # that are asked on all rows, so that the cheaper of two alike can be told
SALT = "search"


def search(work: Workspace, stage: Stage, start: Candidate, limit_usd: float) -> SearchReport:
    """The candidate that a search from `start` comes to, kept so that no rerun asks; see the module for the rule.

    Raises Outage where more than 1% of its requests were lost, CannotBeAsked where the start itself cannot be asked,
    BudgetExceeded at a cap of the climb: what was answered is kept, and a rerun goes on. BadInput before anything is
    asked where `search.reflect` names no model that may reflect.
    """
    key = content_key("search", stage, work.question.key, start.key, f"{limit_usd:.9f}", *_axes(), *_reflecting(work))
    if done := report.kept(work.home, key):
        return done
    rows = seeded(work.tables.need("dev"), SALT).head(work.use_case.search.rows)
    with ExitStack() as stack:
        answers = DevAnswers(work, rows, limit_usd)
        answers.open(stage, start, stack)
        found = _Search(work, stage, answers, start).found()
    check_lost(f"the search of {start.model} in {stage}", answers.lost, answers.answers)
    report.keep(work.home, key, found)
    return found


def _axes() -> list[str]:
    return [each.__name__ for each in AXES]


def _reflecting(work: Workspace) -> list[str]:
    model = work.catalogue.reflecting()
    return [AXIS, model.uri, work.catalogue.asked_revision(model)] if model else []


@dataclass
class _Search:
    work: Workspace
    stage: Stage
    answers: DevAnswers
    start: Candidate
    steps: list[Step] = field(default_factory=list)
    told: list[RetrievalStep] = field(default_factory=list)
    not_tried: list[NotTried] = field(default_factory=list)
    finished: dict[str, Variant] = field(default_factory=dict)  # asked on all rows, by key, in order
    names: set[str] = field(default_factory=set)
    reflected: Reflected | None = None

    def found(self) -> SearchReport:
        problem = self._unfit()
        at = self.start
        if not problem:
            for axis_of in AXES:
                at = self._along(axis_of(self.work, at), at)
            at = self._reflected(self._calibrated(self._asked_as_found(at)))
        return SearchReport(
            start=self.start.key,
            candidate=None if problem else at,
            problem=problem,
            steps=tuple(self.steps),
            told=tuple(self.told),
            not_tried=tuple(self.not_tried),
            variants=max(1, len(self.names)),
            answers=self.answers.answers,
            vote=neighbours_vote(self.work, self.answers.rows) if self._embeds and not problem else None,
            reflection=self.reflected,
            usd=self.answers.usd,
            limit_usd=self.answers.limit_usd,
            calibration_error=None if problem else self._calibration_error(at),
        )

    @property
    def _embeds(self) -> bool:
        """Whether every row is embedded by now; where it is not, the first verdict would wait for it."""
        return self.start.retriever is not None or self.work.use_case.reference == "stop"

    def _unfit(self) -> str:
        """Why the model as it is set up is not fit to be asked, with the setting to change; empty where it is."""
        rows, use_case = min(fitness.FITNESS_ROWS, len(self.answers.rows)), self.work.use_case
        model = self.work.catalogue.model(self.start.model)
        try:
            replies = self.answers.ask(self.start, rows)
        except TooDear as short:
            self._lacking(short)
            return ""
        target = self.answers.target_of(self.start)
        problem = fitness.unfit(use_case, self.start.model, replies)
        problem = problem or dropped_by(model, target, self.answers.cap(self.start), replies)
        tells = self.start.prompt is not None and self.start.prompt.tells_likelihoods
        if problem or tells or not has_temperature(model, target, use_case.task):
            return problem
        try:
            return samples(use_case.task, model, replies, self.answers.ask_again(self.start, rows))
        except TooDear:
            return ""

    def _lacking(self, short: TooDear) -> None:
        lacking = NotTried(axis="all", variant="all", why=self._too_dear, for_money=True, usd=short.usd)
        self.not_tried.append(lacking)

    def _calibrated(self, at: Candidate) -> Candidate:
        try:
            return self.answers.calibrated(at, len(self.answers.rows))
        except TooDear:
            return self.start

    def _reflected(self, at: Candidate) -> Candidate:
        """Where one stands after a reflection, if a model is named that may reflect."""
        model = self.work.catalogue.reflecting()
        if model is None:
            why = "search.reflect names no model to rewrite it"
            self.not_tried.append(NotTried(axis=AXIS, variant="instruction", why=why))
            return at
        asked = [each.candidate for each in self.finished.values()]
        if not asked or any(each.for_money for each in self.not_tried):
            why = "what is cheaper was not all tried"
            self.not_tried.append(NotTried(axis=AXIS, variant="instruction", why=why, for_money=True))
            return at
        outcome = Reflection(self.work, self.stage, self.answers, at, asked, SALT).outcome(model)
        self.reflected = outcome.reflected
        self.names |= {outcome.candidate.key}
        if outcome.reflected.rows:
            self.steps.append(report.as_step(outcome.reflected))
        if not outcome.reflected.rows or outcome.reflected.is_short_of_money:
            self.not_tried.append(report.as_not_tried(outcome.reflected))
        return outcome.candidate

    def _calibration_error(self, at: Candidate) -> CalibrationError | None:
        try:
            return self.answers.calibration_error(at)
        except TooDear:
            return None

    def _along(self, axis: Axis, at: Candidate) -> Candidate:
        """Where one stands after an axis."""
        self.not_tried += [NotTried(axis=axis.name, variant=name, why=why) for name, why in axis.left_out]
        self.told += axis.told
        if axis.decided is not None:
            return self._moved(axis.decided, at)
        here = next((each for each in axis.variants if each.candidate.key == at.key), None)
        others = [each for each in axis.variants if each is not here]
        if not others:
            return at
        before = here or Variant("as before", at)
        left = [before, *others]
        for rows in self._rungs(len(left)):
            left, scores = self._asked(axis, left, rows)
            if not left:
                return at
            is_last = rows == len(self.answers.rows)
            self._note(axis, left, rows, before)
            if not is_last:
                kept = better_half([(each.mean, each.usd) for each in scores])
                kept = kept if len(kept) >= LEAST_FINALISTS else _best(scores, LEAST_FINALISTS)
                left = [left[place] for place in sorted(kept)]
        self.finished |= {each.candidate.key: each for each in left}
        return self._taken(axis, at)

    def _moved(self, decided: Variant, at: Candidate) -> Candidate:
        """Where retrieval alone decided: what was asked before retrieved otherwise, so nothing is compared with it."""
        if decided.candidate.key != at.key:
            log.info(f"search: {decided.name}, by retrieval alone")
            self.finished.clear()
        return decided.candidate

    def _asked_as_found(self, at: Candidate) -> Candidate:
        """The candidate, asked on all rows as it retrieves where that was decided without a call, so that its figure on
        dev is its own.
        """
        if self.told and (self.names or at.key != self.start.key) and at.key not in self.finished:
            axis, found = Axis("as found", ()), Variant(at.retriever.how if at.retriever else "", at)
            left, _ = self._asked(axis, [found], len(self.answers.rows))
            if left:
                self._note(axis, left, len(self.answers.rows), found)
        return at

    def _rungs(self, variants: int) -> list[int]:
        """Rows of each round, up to all."""
        most = len(self.answers.rows)
        rungs = [each.examples for each in schedule(variants, FIRST_ROWS, most)]
        return [*dict.fromkeys([*(rows for rows in rungs if rows < most), most])]

    def _asked(
        self, axis: Axis, variants: Sequence[Variant], rows: int
    ) -> tuple[list[Variant], list[one_standard_error.Variant]]:
        """Those that could be asked so many rows, with their scores."""
        asked: list[Variant] = []
        scores: list[one_standard_error.Variant] = []
        for each in variants:
            try:
                scored = self.answers.scored(each.candidate, rows)
            except TooDear as short:
                self._leave_out(axis, each, self._too_dear, for_money=True, usd=short.usd)
            except CannotBeAsked as why:
                self._leave_out(axis, each, str(why))
            else:
                if unusable := fitness.unusable(self.answers, axis.name, each.candidate, rows):
                    self._leave_out(axis, each, unusable)
                    self.finished.pop(each.candidate.key, None)
                    continue
                self.names.add(each.candidate.key)
                asked.append(each)
                scores.append(scored)
        return asked, scores

    def _leave_out(self, axis: Axis, each: Variant, why: str, for_money: bool = False, usd: float = 0.0) -> None:
        log.info(f"search: {axis.name} {each.name} is left out: {why}")
        self.not_tried.append(NotTried(axis=axis.name, variant=each.name, why=why, for_money=for_money, usd=usd))

    @property
    def _too_dear(self) -> str:
        return f"at worst it would pass the ${self.answers.limit_usd:g} of search.usd"

    def _taken(self, axis: Axis, at: Candidate) -> Candidate:
        every = list(self.finished.values())
        if not every:
            return at
        scores = [self.answers.scored(each.candidate, len(self.answers.rows)) for each in every]
        taken = every[cheapest_within_one_error(scores)]
        for place, step in enumerate(self.steps):
            is_it = step.axis == axis.name and step.variant == taken.name and step.rows == len(self.answers.rows)
            self.steps[place] = step.model_copy(update={"is_taken": step.is_taken or is_it})
        is_here = any(each.candidate.key == taken.candidate.key for each in axis.variants)
        name = taken.name if is_here else f"back to {taken.name}"  # of an earlier axis
        log.info(f"search: {axis.name}: {name}, {scores[every.index(taken)].mean:.3f} on dev")
        return taken.candidate

    def _note(self, axis: Axis, variants: Sequence[Variant], rows: int, before: Variant) -> None:
        """A step for every variant, which replaces that of fewer rows; what was asked on all rows before stays so."""
        every = len(self.answers.rows)
        for each in variants:
            known = every if each.candidate.key in self.finished else rows
            self.steps = [step for step in self.steps if (step.axis, step.variant) != (axis.name, each.name)]
            self.steps.append(self._step(axis, each, known, before))

    def _step(self, axis: Axis, each: Variant, rows: int, before: Variant) -> Step:
        """A variant on so many rows, against where the axis began."""
        scored = self.answers.scored(each.candidate, rows)
        try:
            base = self.answers.scored(before.candidate, rows)
        except (TooDear, CannotBeAsked):
            base = scored
        gained, (lower, upper) = paired(scored.scores, base.scores), interval(scored.scores)
        return Step(
            axis=axis.name,
            variant=each.name,
            rows=rows,
            quality=scored.mean,
            lower=lower,
            upper=upper,
            gain=gained.mean,
            error=gained.error if math.isfinite(gained.error) else 0.0,
            tokens=self.answers.tokens(each.candidate),
            usd=scored.usd,
        )


def _best(scores: Sequence[one_standard_error.Variant], count: int) -> list[int]:
    rank: Callable[[int], tuple[float, float]] = lambda at: (-scores[at].mean, scores[at].usd)  # noqa: E731
    return sorted(range(len(scores)), key=rank)[:count]
