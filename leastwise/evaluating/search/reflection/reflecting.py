"""The last step of a search: an instruction rewritten by reflection, adopted only where it is surely better.

Whether there is headroom is tested first, by answers that are there (`leastwise.evidence.choosing.headroom`). Learning,
choosing and confirming rows are disjoint; the instruction that is best on the choosing rows is compared with the old
one on the confirming rows, and adopted wrongly with probability at most ALPHA. The same answers come to the same end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from leastwise.answering.reading.labels import as_read
from leastwise.answering.workspace import Workspace
from leastwise.errors import CannotBeAsked
from leastwise.evaluating.search.dev_answers import DevAnswers, TooDear, calibrated_on
from leastwise.evaluating.search.reflection.copied import Copied
from leastwise.evaluating.search.reflection.optimizing import Breeding, breed
from leastwise.evaluating.search.reflection.parts import Parts, parts_of
from leastwise.evaluating.search.reflection.proposing import UNUSABLE, Reflector
from leastwise.evaluating.search.reflection.record import Reflected
from leastwise.evidence.choosing import headroom
from leastwise.evidence.choosing.headroom import Headroom, SurelyBetter
from leastwise.evidence.choosing.one_standard_error import interval, paired
from leastwise.evidence.examples_needed import LOOK
from leastwise.ladder.candidate import Candidate
from leastwise.metrics import normalize
from leastwise.rows.gate_rows import seeded
from leastwise.use_case import Stage
from leastwise.use_case.model import Model
from leastwise.use_case.task import Classification

log = logging.getLogger(__name__)

NOT_COPIED = ("train", "dev")  # tables of which no instruction may repeat a text


@dataclass(frozen=True)
class Outcome:
    """The candidate to go on with, and what became of the reflection."""

    candidate: Candidate
    reflected: Reflected


@dataclass
class Reflection:
    """A reflection on the candidate a search came to: `asked` are all that were asked on all searched rows."""

    work: Workspace
    stage: Stage
    answers: DevAnswers
    at: Candidate
    asked: Sequence[Candidate]
    salt: str
    _about: dict[str, object] = field(default_factory=dict)

    def outcome(self, model: Model) -> Outcome:
        """What it comes to. Raises Outage, BudgetExceeded: what was answered is kept, and a rerun goes on."""
        parts = parts_of(seeded(self.work.tables.need("dev"), self.salt), len(self.answers.rows))
        self._about["model"] = model.uri
        if why_not := self._why_not(parts):
            log.info(f"{self.stage}: {why_not}")
            return self._ended(self.at, why_not=why_not)
        with ExitStack() as stack:
            return self._reflected(model, parts, stack)

    def _why_not(self, parts: Parts) -> str:
        task, instruction = self.work.use_case.task, self.work.use_case.task.instruction.strip()
        if not isinstance(task, Classification) or self.at.prompt is None:
            return "the answers are no labels, and headroom is tested by labels"
        if not self.at.prompt.system.startswith(instruction):
            return "the prompt does not begin with the instruction of the use case"
        if parts.why_not:
            return parts.why_not
        found = self._headroom(task)
        self._about["headroom"] = found.words
        quality = self.work.use_case.requirements.quality
        floor = quality.bound - quality.margin if quality else None
        least, right = headroom.least_gain(len(parts.confirm)), found.rows - found.wrong
        lower = interval([1.0] * right + [0.0] * found.wrong)[0]
        if floor is not None and lower >= floor:
            return f"no need: {right} of {found.rows} dev answers are right, surely ≥ {lower:.2f}, and {floor:g} passes"
        return found.why_not(least, floor)

    def _headroom(self, task: Classification) -> Headroom:
        """By the answers of every variant on the searched rows."""
        said = self._said(task, self.at)
        others = [self._said(task, each) for each in self.asked if each.key != self.at.key]
        elsewhere = [
            frozenset(label for each in others if (label := each[at]) is not None) - {said[at]}
            for at in range(len(said))
        ]
        return headroom.headroom(said, elsewhere, list(map(str, self.answers.rows["label"])))

    def _said(self, task: Classification, candidate: Candidate) -> list[str | None]:
        """The label of every searched row; what was lost is taken to be right, so that it makes no headroom."""
        rows = self.answers.rows
        replies, read = self.answers.ask(candidate, len(rows)), self.answers.calibrated(candidate, len(rows))
        return [
            str(label) if reply.error else normalize(task, as_read(read, reply).text)
            for reply, label in zip(replies, rows["label"], strict=True)
        ]

    def _reflected(self, model: Model, parts: Parts, stack: ExitStack) -> Outcome:
        before, reflector = self.answers.usd, Reflector(self.work, self.stage, model, self.answers, self._with)
        reflector.open(stack, self._copied())
        breeding = Breeding(self.answers, parts, self._with, reflector)
        seed = self.work.use_case.task.instruction.strip()
        self.answers.held_usd = 2 * self._usd_a_request * len(parts.confirm)
        taken = self.at
        try:
            breed(breeding, seed)
        except TooDear as why:
            self._about |= {"usd_short": max(why.usd, 1e-9), "ended": f"search.usd does not suffice ({why})"}
        except CannotBeAsked as why:
            self._about["ended"] = str(why)
        finally:
            self.answers.held_usd = 0.0
        self._about |= {
            "proposed": reflector.proposed,
            "rejected": tuple(reflector.rejected),
            "calls": reflector.calls,
            "tried": max(0, len(breeding.scores) - 1),
        }
        if reflector.cannot:
            last = f"{UNUSABLE} times in a row (last: {reflector.rejected[-1]})"
            self._about["ended"] = f"{model.uri} gave nothing that can be used {last}"
        if breeding.scores and breeding.best != seed:
            taken = self._confirmed(breeding, parts, seed)
        return self._ended(taken, usd=self.answers.usd - before)

    def _confirmed(self, breeding: Breeding, parts: Parts, seed: str) -> Candidate:
        """The new instruction where it is surely better on rows that neither taught nor chose it, else the old one."""
        best, test, rows = breeding.best, SurelyBetter(), parts.confirm
        self._about |= {"instruction": best, "before": breeding.scores[seed], "after": breeding.scores[best]}
        choosing = self.answers.ask_rows(self._with(best), parts.choose)
        new = calibrated_on(self._with(best), list(map(str, parts.choose["label"])), choosing)
        ours: list[float] = []
        theirs: list[float] = []
        try:
            for at in range(0, len(rows), LOOK):
                look = rows.iloc[at : at + LOOK]
                for scores, candidate in ((ours, new), (theirs, self.at)):
                    replies = self.answers.ask_rows(candidate, look, rows)
                    scores += self.answers.scored_as(candidate, look, replies).scores
                test.add(ours[at:], theirs[at:])
                if test.is_over:
                    break
        except TooDear as why:
            self._about |= {"usd_short": max(why.usd, 1e-9), "ended": f"search.usd does not suffice ({why})"}
        pairs = min(len(ours), len(theirs))
        if pairs:
            self._tell(test, ours[:pairs], theirs[:pairs], new)
        return new if test.is_better else self.at

    def _tell(self, test: SurelyBetter, ours: list[float], theirs: list[float], new: Candidate) -> None:
        error = paired(ours, theirs).error
        self._about |= {
            "rows": test.rows,
            "gain": test.gain,
            "lower": test.bounds[0],
            "upper": test.bounds[1],
            "quality": float(np.nanmean(ours)),
            "error": error if np.isfinite(error) else 0.0,
            "tokens": self.answers.tokens(new),
            "usd_a_request": self.answers.usd_a_request(new),
            "is_adopted": test.is_better,
        }

    def _ended(self, candidate: Candidate, **more: object) -> Outcome:
        return Outcome(candidate, Reflected.model_validate(self._about | more))

    def _with(self, instruction: str) -> Candidate:
        """The candidate with another instruction before what else its system prompt says."""
        assert self.at.prompt is not None
        old = self.work.use_case.task.instruction.strip()
        system = instruction.strip() + self.at.prompt.system.removeprefix(old)
        return self.at.model_copy(update={"prompt": self.at.prompt.model_copy(update={"system": system})})

    @property
    def _usd_a_request(self) -> float:
        """What a request came to on the searched rows."""
        return self.answers.usd_a_request(self.at)

    def _copied(self) -> Copied:
        tables = [frame for name in NOT_COPIED if (frame := self.work.tables.get(name)) is not None]
        return Copied(str(text) for frame in tables for text in frame["text"])
