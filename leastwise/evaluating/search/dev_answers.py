"""Dev rows answered by variants of one model, each as far as it has been asked: scores, dollars, and the worst ahead.

All variants of a model share one endpoint. Every answer is kept like any other, and paid for as `search`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer
from leastwise.answering.reaching.reached import asker_of, reach
from leastwise.answering.reading.labels import as_read, why_not_decided
from leastwise.answering.served import answer_of, requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Request, Target, usd_worst
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence.choosing import one_standard_error
from leastwise.evidence.choosing.calibration import CalibrationError, calibration_error, fitted
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.stores.caps import Purpose
from leastwise.use_case import Stage
from leastwise.use_case.habits import Reasoning

if TYPE_CHECKING:
    import pandas as pd

UNPRICED = 1e-9  # dollars a token is taken to cost where nothing is billed, so that the shorter prompt is the cheaper


class TooDear(Exception):  # noqa: N818 - says what happened
    """A variant is not asked further: at worst that could pass what the search may cost. `usd`: what it takes at worst
    to ask it to the end.
    """

    def __init__(self, usd: float) -> None:
        super().__init__(f"at most ${usd:.4g} more")
        self.usd = usd


@dataclass
class DevAnswers:
    """The answers of a search so far; `usd` is what they come to, whenever they were bought, and `held_usd` what is
    kept of the limit for what comes later.
    """

    work: Workspace
    rows: pd.DataFrame
    limit_usd: float
    usd: float = 0.0
    held_usd: float = 0.0
    _replies: dict[str, dict[str, Reply]] = field(default_factory=dict)

    def open(self, stage: Stage, candidate: Candidate, stack: ExitStack, purpose: Purpose = "search") -> None:
        """Start, or reach, whatever answers for this model; it ends with the stack."""
        self._stack, self._payer = stack, Payer(stage, purpose)
        self._reached = reach(self.work, _in_every_way(self.work, candidate), stack)
        self._askers: dict[tuple[bool, Reasoning | None], Asker] = {}
        self._price = self.work.catalogue.price_in_venue(candidate)

    def ask(self, candidate: Candidate, rows: int) -> list[Reply]:
        """The replies to the first so many rows, as they came.

        Raises TooDear, before anything is sent, where what is missing could pass the limit; CannotBeAsked where the
        model takes no such request.
        """
        return self.ask_rows(candidate, self.rows.iloc[:rows], self.rows)

    def ask_rows(self, candidate: Candidate, rows: pd.DataFrame, whole: pd.DataFrame | None = None) -> list[Reply]:
        """The replies to these rows of dev, as `ask`; `whole`: all rows that it is to be asked in the end."""
        asked, ids = self._replies.setdefault(_asked_as(candidate), {}), list(rows["id"])
        missing = rows[[each not in asked for each in ids]].drop_duplicates("id")
        if len(missing):
            requests = self._requests(candidate, missing)
            if not self.has_room(self._worst(requests)):
                rest = rows if whole is None else whole
                left = rest[[each not in asked for each in rest["id"]]]
                raise TooDear(self._worst(self._requests(candidate, left)))
            came = self._asker_of(candidate).ask(requests)
            self.book(sum(reply.usd for reply in came if not reply.error))
            asked |= zip(missing["id"], came, strict=True)
        return [asked[each] for each in ids]

    def ask_again(self, candidate: Candidate, rows: int) -> list[Reply]:
        """Replies to the very same requests for the first so many rows, asked once more and kept apart. As `ask`."""
        requests = [replace(each, sample=1) for each in self._requests(candidate, self.rows.iloc[:rows])]
        if not self.has_room(self._worst(requests)):
            raise TooDear(self._worst(requests))
        came = self._asker_of(candidate).ask(requests)
        self.book(sum(reply.usd for reply in came if not reply.error))
        self._replies[f"again {_asked_as(candidate)}"] = {reply.row_id: reply for reply in came}
        return came

    def target_of(self, candidate: Candidate) -> Target:
        """Who is asked, with the habits that are known by now."""
        return self._asker_of(candidate).target

    def cap(self, candidate: Candidate) -> int:
        """The cap on output tokens that is sent with its requests."""
        return self._requests(candidate, self.rows.iloc[:1])[0].most_output_tokens

    def has_room(self, worst_usd: float) -> bool:
        """Whether what may cost so much at worst stays within the limit."""
        return self.usd + worst_usd <= self.limit_usd - self.held_usd

    def book(self, usd: float) -> None:
        """Count what was spent, at today's prices, against the limit."""
        self.usd += usd

    def _requests(self, candidate: Candidate, rows: pd.DataFrame) -> list[Request]:
        return requests_of(self.work, candidate, list(rows["id"]), list(rows["text"]))

    def scored(self, candidate: Candidate, rows: int) -> one_standard_error.Variant:
        """Scores of the first so many rows, read as the candidate reads them, and dollars a request."""
        replies, read = self.ask(candidate, rows), self.calibrated(candidate, rows)
        return self.scored_as(read, self.rows.iloc[:rows], replies)

    def scored_as(self, read: Candidate, rows: pd.DataFrame, replies: Sequence[Reply]) -> one_standard_error.Variant:
        """The scores of these replies to these rows, read as this candidate reads them, and dollars a request."""
        answers = [answer_of(as_read(read, reply)) for reply in replies]
        scores = ExactScorer(self.work.use_case.task).score(rows, answers)
        values = [math.nan if score is None else score.quality for score in scores]
        return one_standard_error.Variant(values, _usd_a_request(replies))

    def tokens(self, candidate: Candidate) -> float:
        """Input tokens a request."""
        known = [reply.input_tokens for reply in self._replies[_asked_as(candidate)].values() if not reply.error]
        return sum(known) / len(known) if known else 0.0

    def usd_a_request(self, candidate: Candidate) -> float:
        """Dollars a request came to; infinite where none did."""
        return _usd_a_request(list(self._replies[_asked_as(candidate)].values()))

    def calibrated(self, candidate: Candidate, rows: int) -> Candidate:
        """The candidate with a temperature, and a class prior where it wants one, fitted on the first so many rows."""
        if candidate.prompt is None or not candidate.prompt.tells_likelihoods:
            return candidate
        return calibrated_on(candidate, list(map(str, self.rows["label"].iloc[:rows])), self.ask(candidate, rows))

    def calibration_error(self, candidate: Candidate) -> CalibrationError | None:
        """How well its confidence is calibrated on all rows; None where no likelihoods are read."""
        prompt = candidate.prompt
        if prompt is None or not prompt.tells_likelihoods:
            return None
        has_prior = prompt.calibration is not None and bool(prompt.calibration.log_prior)
        return calibration_error(*self._likely(candidate, len(self.rows)), with_prior=has_prior)

    def median_ms(self, candidate: Candidate, rows: int) -> float:
        """What half of the first so many answers took at most, milliseconds; NaN where none was timed."""
        took = [reply.latency_ms for reply in self.ask(candidate, rows) if not math.isnan(reply.latency_ms)]
        return statistics.median_low(took) if took else math.nan

    def _asker_of(self, candidate: Candidate) -> Asker:
        """A client a target: candidates of another effort, or that decide, are asked apart."""
        way = (candidate.decides, candidate.prompt.reasoning if candidate.prompt else None)
        if way not in self._askers:
            target = self._reached.target_of(candidate)
            self._askers[way] = asker_of(self.work, candidate, target, self._stack, self._payer)
        return self._askers[way]

    def _likely(self, candidate: Candidate, rows: int) -> tuple[list[dict[str, float]], list[str]]:
        """What is told of each label, and the expected one, of the rows that tell it."""
        return _told(self.ask(candidate, rows), list(map(str, self.rows["label"].iloc[:rows])))

    @property
    def answers(self) -> int:
        """How many answers there are, variants that share them counted once."""
        return sum(len(replies) for replies in self._replies.values())

    @property
    def lost(self) -> int:
        """How many of the requests the infrastructure lost."""
        return sum(bool(reply.error) for replies in self._replies.values() for reply in replies.values())

    def _worst(self, requests: Sequence[Request]) -> float:
        return sum(usd_worst(each, self._price.usd) for each in requests) if self._price else 0.0


def calibrated_on(candidate: Candidate, labels: Sequence[str], replies: Sequence[Reply]) -> Candidate:
    """The candidate as `DevAnswers.calibrated`, fitted on these replies to rows with these labels."""
    prompt = candidate.prompt
    if prompt is None or not prompt.tells_likelihoods:
        return candidate
    calibration = fitted(*_told(replies, labels), with_prior=prompt.calibration is not None)
    return candidate.model_copy(update={"prompt": prompt.model_copy(update={"calibration": calibration})})


def _told(replies: Sequence[Reply], labels: Sequence[str]) -> tuple[list[dict[str, float]], list[str]]:
    """What is told of each label, and the expected one, of the rows that tell it."""
    pairs = zip(replies, labels, strict=True)
    told = [(each, label) for reply, label in pairs if not reply.error and (each := likelihoods_in(reply.text))]
    return [each for each, _ in told], [label for _, label in told]


def _asked_as(candidate: Candidate) -> str:
    """Candidates that differ in how answers are read, and in nothing that is asked, share them."""
    prompt = candidate.prompt
    bare = prompt.model_copy(update={"calibration": None}) if prompt else None
    return candidate.model_copy(update={"prompt": bare}).key


def _in_every_way(work: Workspace, candidate: Candidate) -> Candidate:
    """The candidate as its server must be started: one that takes decisions answers all else just the same."""
    if why_not_decided(work.catalogue, candidate):
        return candidate
    return candidate.model_copy(update={"prompt": Prompt(system="", reading="decide")})


def _usd_a_request(replies: Sequence[Reply]) -> float:
    known = [reply for reply in replies if not reply.error]
    if not known:
        return math.inf
    usd = sum(reply.usd for reply in known)
    tokens = sum(reply.input_tokens + 4 * reply.output_tokens for reply in known)
    return (usd or UNPRICED * tokens) / len(known)
