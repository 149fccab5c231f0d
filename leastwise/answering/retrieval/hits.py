"""What a search found, how several searches become one, and how good a search is against gold. It searches nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

_FUSION_RANK = 60  # reciprocal rank fusion, Cormack, Clarke and Büttcher, SIGIR 2009
DIGITS = 6  # of a score: what differs by less is a tie, which falls by id and not by thread


@dataclass(frozen=True)
class Hit:
    """One retrieved row, or a `part` of a document, under the document's id; `score`: higher is nearer.

    The score is a cosine (dense), BM25, fused reciprocal ranks (hybrid) or a weighted sum of two scores.
    """

    id: str
    text: str
    label: str | None
    score: float
    part: int = 0

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from every other in an index."""
        return (self.id, self.part)


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Nearest first, ties by id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.place))


def by_ranks(*rankings: Sequence[Hit]) -> list[Hit]:
    """Several rankings as one, by the sum of reciprocal ranks."""
    hits = {hit.place: hit for ranking in rankings for hit in ranking}
    score = dict.fromkeys(hits, 0.0)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            score[hit.place] += 1.0 / (_FUSION_RANK + rank)
    return in_order([replace(hit, score=round(score[place], DIGITS)) for place, hit in hits.items()])


def weighed(hits: Sequence[Hit], other: Mapping[tuple[str, int], float], share: float) -> list[Hit]:
    """The hits by `share` of their own score and the rest of the `other`, which is 0 where it is not known.

    A hit of which either score rises, all else as it was, is ranked no lower.
    """
    scores = [share * hit.score + (1.0 - share) * other.get(hit.place, 0.0) for hit in hits]
    return in_order([replace(hit, score=round(score, DIGITS)) for hit, score in zip(hits, scores, strict=True)])


def as_shares(hits: Sequence[Hit]) -> dict[tuple[str, int], float]:
    """Scores as shares of the highest, in [0, 1]: BM25 has no upper end of its own."""
    most = max((hit.score for hit in hits), default=0.0)
    return {hit.place: hit.score / most if most > 0 else 0.0 for hit in hits}


Gold = str | Collection[str]  # the id of the row that answers a search, or the ids of several, each of which does


def recall_at_k(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold], k: int) -> float:
    """Share of searches with a gold id among the first `k` hits, in [0, 1]; of several gold ids one is enough."""
    return float(np.mean([rank <= k for rank in gold_ranks(searches, gold_ids)]))


def mean_reciprocal_rank(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> float:
    """Mean over searches of 1 / rank of the first gold id, 0 where none was found, in [0, 1]."""
    return float(np.mean(1.0 / np.asarray(gold_ranks(searches, gold_ids))))


def gold_ranks(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> list[float]:
    """Rank of the first gold id in each search, from 1; infinity where none was found."""
    wanted = [{gold} if isinstance(gold, str) else set(gold) for gold in gold_ids]
    return [
        next((float(rank) for rank, hit in enumerate(hits, 1) if hit.id in gold), np.inf)
        for hits, gold in zip(searches, wanted, strict=True)
    ]
