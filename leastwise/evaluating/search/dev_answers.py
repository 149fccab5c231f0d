"""Dev rows answered by variants of one model, each as far as it has been asked: scores, dollars, and the worst ahead.

All variants of a model share one endpoint. Every answer is kept like any other, and paid for as `search`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer
from leastwise.answering.reaching.reached import asker_of, reach
from leastwise.answering.reading.labels import as_read, why_not_decided
from leastwise.answering.served import answer_of, requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Request, usd_worst
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence.choosing import one_standard_error
from leastwise.evidence.choosing.calibration import CalibrationError, calibration_error, fitted
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.money.token_counts import CHOICE_TOKENS, most_tokens
from leastwise.stores.caps import Purpose
from leastwise.use_case import Stage
from leastwise.use_case.habits import Reasoning

if TYPE_CHECKING:
    import pandas as pd

UNPRICED = 1e-9  # dollars a token is taken to cost where nothing is billed, so that the shorter prompt is the cheaper


class TooDear(Exception):  # noqa: N818 - says what happened
    """A variant is not asked further: at worst that could pass what the search may cost."""


@dataclass
class DevAnswers:
    """The answers of a search so far, in the order of `rows`; `usd` is what they come to, whenever they were bought."""

    work: Workspace
    rows: pd.DataFrame
    limit_usd: float
    usd: float = 0.0
    _replies: dict[str, list[Reply]] = field(default_factory=dict)

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
        asked = self._replies.setdefault(_asked_as(candidate), [])
        missing = self.rows.iloc[len(asked) : rows]
        if len(missing):
            requests = requests_of(self.work, candidate, list(missing["id"]), list(missing["text"]))
            if self.usd + self._worst(requests) > self.limit_usd:
                raise TooDear
            came = self._asker_of(candidate).ask(requests)
            self.usd += sum(reply.usd for reply in came if not reply.error)
            asked += came
        return asked[:rows]

    def scored(self, candidate: Candidate, rows: int) -> one_standard_error.Variant:
        """Scores of the first so many rows, read as the candidate reads them, and dollars a request."""
        replies, read = self.ask(candidate, rows), self.calibrated(candidate, rows)
        answers = [answer_of(as_read(read, reply)) for reply in replies]
        scores = ExactScorer(self.work.use_case.task).score(self.rows.iloc[:rows], answers)
        values = [math.nan if score is None else score.quality for score in scores]
        return one_standard_error.Variant(values, _usd_a_request(replies))

    def tokens(self, candidate: Candidate) -> float:
        """Input tokens a request."""
        known = [reply.input_tokens for reply in self._replies[_asked_as(candidate)] if not reply.error]
        return sum(known) / len(known) if known else 0.0

    def calibrated(self, candidate: Candidate, rows: int) -> Candidate:
        """The candidate with a temperature, and a class prior where it wants one, fitted on the first so many rows."""
        prompt = candidate.prompt
        if prompt is None or not prompt.tells_likelihoods:
            return candidate
        calibration = fitted(*self._likely(candidate, rows), with_prior=prompt.calibration is not None)
        return candidate.model_copy(update={"prompt": prompt.model_copy(update={"calibration": calibration})})

    def calibration_error(self, candidate: Candidate) -> CalibrationError | None:
        """How well its confidence is calibrated on all rows; None where no likelihoods are read."""
        prompt = candidate.prompt
        if prompt is None or not prompt.tells_likelihoods:
            return None
        has_prior = prompt.calibration is not None and bool(prompt.calibration.log_prior)
        return calibration_error(*self._likely(candidate, len(self.rows)), with_prior=has_prior)

    def drops_effort(self, candidate: Candidate) -> bool:
        """Whether whoever is asked refused the effort it was told, so that it is asked without, and nothing shows that
        it thought all the same; a person who said so of the model knows it.
        """
        target, declared = self._asker_of(candidate).target, self.work.catalogue.model(candidate.model).habits
        if target.reasoning in (None, "none") or declared.reasoning_effort is False:
            return False
        is_refused = target.habits.reasoning_effort is False
        return is_refused and not any(map(_has_thought, self._replies.get(_asked_as(candidate), [])))

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
        expected, likely = [], []
        for reply, label in zip(self.ask(candidate, rows), self.rows["label"], strict=False):
            if not reply.error and (each := likelihoods_in(reply.text)):
                likely.append(each)
                expected.append(str(label))
        return likely, expected

    @property
    def answers(self) -> int:
        """How many answers there are, variants that share them counted once."""
        return sum(len(replies) for replies in self._replies.values())

    @property
    def lost(self) -> int:
        """How many of the requests the infrastructure lost."""
        return sum(bool(reply.error) for replies in self._replies.values() for reply in replies)

    def _worst(self, requests: Sequence[Request]) -> float:
        return sum(usd_worst(each, self._price.usd) for each in requests) if self._price else 0.0


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


def _has_thought(reply: Reply) -> bool:
    """Whether an answer counts more tokens than its text can have."""
    return not reply.error and reply.usage_known and reply.output_tokens > most_tokens(reply.text) + CHOICE_TOKENS


def _usd_a_request(replies: Sequence[Reply]) -> float:
    known = [reply for reply in replies if not reply.error]
    if not known:
        return math.inf
    usd = sum(reply.usd for reply in known)
    tokens = sum(reply.input_tokens + 4 * reply.output_tokens for reply in known)
    return (usd or UNPRICED * tokens) / len(known)
