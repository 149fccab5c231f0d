"""Dev rows answered by variants of one model, each as far as it has been asked: scores, dollars, and the worst ahead.

All variants of a model share one endpoint. Every answer is kept like any other, and paid for as `search`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Payer
from leastwise.answering.reaching.reached import open_asker
from leastwise.answering.reading.labels import as_read
from leastwise.answering.served import answer_of, requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Request, usd_worst
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence.choosing import one_standard_error
from leastwise.evidence.choosing.calibration import Calibration, fitted
from leastwise.ladder.candidate import Candidate
from leastwise.use_case import Stage

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

    def open(self, stage: Stage, candidate: Candidate, stack: ExitStack) -> None:
        """Start, or reach, whatever answers for this model; it ends with the stack."""
        self._asker = open_asker(self.work, candidate, stack, Payer(stage, "search"))
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
            came = self._asker.ask(requests)
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
        if prompt is None or prompt.reading != "likelihood":
            return candidate
        expected, likely = [], []
        for reply, label in zip(self.ask(candidate, rows), self.rows["label"], strict=False):
            if not reply.error and (each := likelihoods_in(reply.text)):
                likely.append(each)
                expected.append(str(label))
        calibration: Calibration = fitted(likely, expected, with_prior=prompt.calibration is not None)
        return candidate.model_copy(update={"prompt": prompt.model_copy(update={"calibration": calibration})})

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


def _usd_a_request(replies: Sequence[Reply]) -> float:
    known = [reply for reply in replies if not reply.error]
    if not known:
        return math.inf
    usd = sum(reply.usd for reply in known)
    tokens = sum(reply.input_tokens + 4 * reply.output_tokens for reply in known)
    return (usd or UNPRICED * tokens) / len(known)
