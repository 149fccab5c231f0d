"""Who answers many rows for a registered winner: by the code of the climb, through whatever its engine has for many.

A student reads them in batches in this process, a provider may be given them as one job, any other model is asked with
several in flight. What was answered before under the same key is taken from the store and paid no second time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from leastwise.answering.answerer import Answerer, Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.served import ServedAnswerer
from leastwise.answering.student import student_answer
from leastwise.errors import BadInput, CannotBeAsked, TextTooLong
from leastwise.ladder.candidate import Candidate
from leastwise.metrics import normalize
from leastwise.metrics.answer import Answer
from leastwise.models.machine import THREADS
from leastwise.models.student import Student
from leastwise.record.published.candidate_files import BUNDLE
from leastwise.serving.live import TOO_LONG
from leastwise.serving.opening import fetched_version
from leastwise.serving.production import Production
from leastwise.stores.answer_store import Answers
from leastwise.stores.budget import Budget

if TYPE_CHECKING:
    import pandas as pd


class _Many(Protocol):
    """Whoever answers rows."""

    def __call__(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row; TextTooLong or CannotBeAsked where one of them can be asked in no way."""
        ...


@dataclass(frozen=True)
class BulkAnswerer:
    """A winner that answers rows (id and text, masked), those of one shard at a time."""

    production: Production
    many: _Many
    turn: threading.Lock

    def answer(self, rows: pd.DataFrame) -> tuple[list[Answer], float]:
        """One answer a row with the label it means, and the seconds they took. A row that no model could read has
        `error` and the finish reason TOO_LONG, one that was lost has `error` alone.
        """
        task = self.production.use_case.task
        with self.turn:  # shards are read and written beside each other; an engine has one queue
            began = time.monotonic()
            answers = self._each(rows)
            seconds = time.monotonic() - began
        if task.kind == "classification":
            answers = [a if a.text is None else replace(a, label=normalize(task, a.text)) for a in answers]
        return answers, seconds

    def _each(self, rows: pd.DataFrame) -> list[Answer]:
        try:
            return self.many(rows)
        except (TextTooLong, CannotBeAsked) as error:
            if len(rows) == 1:
                return [Answer(None, None, 0.0, error=str(error), finish_reason=TOO_LONG)]
        middle = len(rows) // 2  # what is answered meanwhile is in the store
        return [*self._each(rows.iloc[:middle]), *self._each(rows.iloc[middle:])]


@contextmanager
def open_bulk(
    name: str, version: str, answers: Answers, budget: Budget, in_flight: int = 0, batches: bool = False
) -> Iterator[BulkAnswerer]:
    """A version of the registered model `name`, for as long as the block lasts; what it buys is held to the budget.

    BadInput where it cannot be opened, or has no batch interface and `batches` is asked for.
    """
    folder = fetched_version(name, version) / BUNDLE
    with TemporaryDirectory(prefix="leastwise-bulk-") as home:
        production = Production.of(folder, Path(home), answers, budget)
        if in_flight:
            traffic = production.use_case.traffic.model_copy(update={"concurrency": in_flight})
            case = production.use_case.model_copy(update={"traffic": traffic})
            production = replace(production, use_case=case)
        plain = production.candidate.cache.model_copy(update={"exact": False})  # the store is before it
        candidate = production.candidate.model_copy(update={"cache": plain})
        if _is_bare_student(candidate):
            yield BulkAnswerer(production, _in_batches(production, candidate), threading.Lock())
            return
        with open_answerer(production, candidate, Payer(candidate.stage, "serving")) as answerer:
            yield BulkAnswerer(production, _asking(answerer, name, batches), threading.Lock())


def _is_bare_student(candidate: Candidate) -> bool:
    is_student = candidate.weights is not None and candidate.weights.kind == "student"
    return is_student and not (candidate.guard or candidate.cascade)


def _in_batches(production: Production, candidate: Candidate) -> _Many:
    student, price = Student(production.trained(candidate), THREADS), production.catalogue.price_in_venue(candidate)

    def answer(rows: pd.DataFrame) -> list[Answer]:
        texts = list(rows["text"])
        said = student.answer(texts)
        return [student_answer(student.directory, price, *each) for each in zip(texts, said, strict=True)]

    return answer


def _asking(answerer: Answerer, name: str, batches: bool) -> _Many:
    if not batches:
        return answerer.answer
    if not (isinstance(answerer, ServedAnswerer) and answerer.offers_batches):
        raise BadInput(f"batches: {name} has no provider with a batch interface of its own; leave it off")
    return answerer.answer_in_batch
