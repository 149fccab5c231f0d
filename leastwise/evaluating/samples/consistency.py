"""Same input twice, and the same in other words: is the answer the same? Reported, never gated.

Three figures, each with its n, for whatever answers: `self_consistency` (a served model asked several times at a
temperature), `consistency.same` (the same once more, past the answers that are stored) and `consistency.paraphrase`
(the rows of `data.paraphrases`, which people wrote, against the gate rows they paraphrase). "The same" is the task's
notion (`agree`): label, record, or words. Rows the infrastructure lost are left out. Typos and the like are no
paraphrases: see `shift_quality`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leastwise.errors import CannotBeAsked
from leastwise.metrics.task_metric import agree
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.answerer import Answerer
    from leastwise.metrics.answer import Answer


log = logging.getLogger(__name__)


@dataclass
class Repetition:
    """What asking again found, and the dollars it took."""

    figures: dict[str, float] = field(default_factory=dict)
    usd: float = 0.0

    def add(self, name: str, use_case: UseCase, each: Sequence[Sequence[Answer]]) -> None:
        """One figure: the mean agreement of the answers to each input, over inputs with at least two."""
        texts = [[answer.text for answer in of_row if answer.text is not None] for of_row in each]
        shares = [agree(use_case.task, of_row) for of_row in texts if len(of_row) > 1]
        self.figures[f"{name}.n"] = float(len(shares))
        if shares:
            self.figures[name] = float(np.mean(shares))

    def pay(self, name: str, answers: Sequence[Answer]) -> None:
        """Count what was bought now."""
        paid = [answer for answer in answers if not answer.from_store and answer.error is None]
        self.figures[f"{name}.calls"] = self.figures.get(f"{name}.calls", 0.0) + len(paid)
        self.usd += sum(answer.usd for answer in paid)


def ask_again(
    use_case: UseCase, answerer: Answerer, rows: pd.DataFrame, paraphrases: pd.DataFrame | None
) -> Repetition:
    """Ask gate rows again and their paraphrases; empty where the use case wants neither.

    Behind a response cache the model itself is asked, since a cache says the same by construction.
    """
    repetition, settings = Repetition(), use_case.consistency
    if settings is not None:
        part = rows.head(settings.rows)
        samples = _sampled(answerer, part, settings.samples, settings.temperature)
        if samples:
            repetition.add("self_consistency", use_case, samples)
            repetition.pay("self_consistency", [answer for of_row in samples for answer in of_row])
        first, again = answerer.uncached.answer(part), answerer.uncached.again(part)
        repetition.add("consistency.same", use_case, list(zip(first, again, strict=True)))
        repetition.pay("consistency", [*first, *again])
    if paraphrases is not None:
        _ask_paraphrases(repetition, use_case, answerer.uncached, rows, paraphrases)
    return repetition


def _sampled(answerer: Answerer, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
    """Several answers to each row; empty where the model takes no temperature, for this figure is only reported."""
    try:
        return answerer.samples(rows, count, temperature)
    except CannotBeAsked as why:
        log.info(f"self_consistency is not measured: {why}")
        return []


def _ask_paraphrases(
    repetition: Repetition, use_case: UseCase, answerer: Answerer, rows: pd.DataFrame, paraphrases: pd.DataFrame
) -> None:
    named = paraphrases["id"].astype(str)
    originals = rows[rows["id"].astype(str).isin(named)]
    first = dict(zip(originals["id"].astype(str), answerer.answer(originals), strict=True))
    worded = paraphrases[named.isin(first.keys())]
    if worded.empty:
        return
    ids = worded["id"].astype(str)
    again = answerer.answer(worded.assign(id=[f"{row_id}~{number}" for number, row_id in enumerate(ids)]))
    pairs = [(first[row_id], answer) for row_id, answer in zip(ids, again, strict=True)]
    repetition.add("consistency.paraphrase", use_case, pairs)
    repetition.pay("consistency", [*first.values(), *again])
