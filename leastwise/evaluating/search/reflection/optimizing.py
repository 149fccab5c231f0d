"""GEPA (Agrawal et al., arXiv 2507.19457) with our engine, store, scorer and ledger: an instruction bred by reflection.

GEPA decides which instruction is rewritten on which rows and which children live; it asks and pays nothing itself, and
writes nothing (`run_dir` would be pickles). It looks at stop conditions between iterations only, so what must end it at
once is raised through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering.reading.labels import as_read
from leastwise.evaluating.search.dev_answers import DevAnswers, calibrated_on
from leastwise.evaluating.search.reflection.parts import Parts
from leastwise.evaluating.search.reflection.proposing import Record, Reflector
from leastwise.ladder.candidate import Candidate
from leastwise.money.search_cost import MINIBATCH, MOST_PROPOSALS

if TYPE_CHECKING:
    import pandas as pd
    from gepa.core.adapter import EvaluationBatch
    from gepa.core.state import GEPAState

    Batch = EvaluationBatch[Record, str]

NAME = "instruction"
STALL = 5  # proposals in a row without a better one on the choosing rows
SEED = 0


class Quiet:
    """Nothing is printed."""

    def log(self, message: str) -> None:
        """Say nothing: what came of it is in the report."""


@dataclass
class Breeding:
    """What GEPA calls: it answers rows of dev under an instruction, and hands on what went wrong.

    `scores` holds the mean of every instruction that was asked on all choosing rows, in that order.
    """

    answers: DevAnswers
    parts: Parts
    as_candidate: Callable[[str], Candidate]
    reflector: Reflector
    scores: dict[str, float] = field(default_factory=dict)
    _at_best: int = 0

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Batch:
        """The scores of these rows, by their ids, under this instruction."""
        from gepa.core.adapter import EvaluationBatch

        said = candidate[NAME]
        rows = self._rows(batch)
        replies = self.answers.ask_rows(self.as_candidate(said), rows)
        read, is_choosing = self.as_candidate(said), set(batch) == set(self.parts.choose["id"])
        if is_choosing:
            read = calibrated_on(read, list(map(str, rows["label"])), replies)
        # What was lost is 0 under every instruction alike; more than 1% of it ends the search as an outage.
        scores = np.nan_to_num(np.array(self.answers.scored_as(read, rows, replies).scores)).tolist()
        texts = [as_read(read, reply).text for reply in replies]
        if is_choosing:
            self._note(said, sum(scores) / len(scores))
        records: list[Record] = [
            {"Text": str(text), "Answered": answered.strip(), "Right": str(label)}
            for text, label, answered, reply in zip(rows["text"], rows["label"], texts, replies, strict=True)
            if not reply.error
        ]
        return EvaluationBatch(texts, scores, records if capture_traces else None)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Batch, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Record]]:
        """What was answered and what was right."""
        return {NAME: list(eval_batch.trajectories or [])}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Record]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """Another instruction; none where what came cannot be taken."""
        found = self.reflector.proposal(candidate[NAME], reflective_dataset[NAME])
        return {NAME: found} if found else {}

    def is_over(self, gepa_state: GEPAState[str, int]) -> bool:
        """Whether GEPA is to stop: after so many proposals, so many without a better one, or none that can be used."""
        asked = self.reflector
        stalled = asked.proposed - self._at_best >= STALL
        return bool(asked.ended) or asked.cannot or stalled or asked.proposed >= MOST_PROPOSALS

    @property
    def best(self) -> str:
        """The instruction with the highest mean on the choosing rows, of equals the earliest."""
        return max(self.scores, key=lambda each: self.scores[each])

    def _note(self, said: str, mean: float) -> None:
        if not self.scores or mean > max(self.scores.values()):
            self._at_best = self.reflector.proposed
        self.scores.setdefault(said, mean)

    def _rows(self, ids: Sequence[str]) -> pd.DataFrame:
        """Of a part, in the order of the ids."""
        found = self._by_id.loc[list(ids)]
        return found.reset_index()

    def __post_init__(self) -> None:
        import pandas as pd

        self._by_id = pd.concat([self.parts.learn, self.parts.choose]).set_index("id")


def breed(breeding: Breeding, seed: str) -> None:
    """Let GEPA look for better instructions than `seed`; what it found is in `breeding`.

    Raises what ended it: TooDear, BudgetExceeded, CannotBeAsked, Outage.
    """
    from gepa.api import optimize

    learn, choose = breeding.parts.learn, breeding.parts.choose
    optimize(
        seed_candidate={NAME: seed},
        trainset=list(learn["id"]),
        valset=list(choose["id"]),
        adapter=breeding,  # type: ignore[arg-type]  # its own proposer is a method here, there an attribute or None
        reflection_minibatch_size=min(MINIBATCH, len(learn)),
        max_metric_calls=(len(choose) + 2 * MINIBATCH) * (MOST_PROPOSALS + 1),
        stop_callbacks=[breeding.is_over],
        logger=Quiet(),
        seed=SEED,
        track_best_outputs=False,
        raise_on_exception=True,
    )
    if breeding.reflector.ended:
        raise breeding.reflector.ended
