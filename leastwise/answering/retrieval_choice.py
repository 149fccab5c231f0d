"""Ways to retrieve held against each other without a model call: do they find the gold documents of known questions,
or neighbours of the same label?

Scores are of rows that no gate sees: dev, and train where its questions name gold documents. It changes no candidate;
who asks takes the cheapest within one standard error of the best.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from leastwise.answering.retrieval import Hit, Index, gold_ranks, looked_up
from leastwise.answering.retrieval.index import Near
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evidence.choosing.one_standard_error import Variant, cheapest_within_one_error, paired
from leastwise.ladder.candidate import Retriever
from leastwise.rows import gold
from leastwise.rows.gate_rows import seeded
from leastwise.use_case.settings import SearchMode

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DEPTH = 20  # ranks beyond it count nothing
MOST_ROWS = 200  # searched for, once for all ways: some 5 s
LEAST_ROWS = 20  # fewer known questions choose nothing
FIRST_ROWS = 25  # on which late interaction is tried before token vectors are stored
SALT = "retrieval"
AS_IT_IS = 0.5  # less than one step of these: what is as good and no dearer changes nothing
EFFORT = {"dense": 0.0, "bm25": 0.0, "hybrid": 0.0, "late": 1.0}  # of a search: only its order counts (docs/log.md)

Figure = Literal["MRR of gold documents", "neighbours of the same label"]
GOLD: Figure = "MRR of gold documents"
LABEL: Figure = "neighbours of the same label"


@dataclass(frozen=True)
class Judged:
    """A way to retrieve: its figure, and what it gained over the first, paired; `why` where it was not judged."""

    retriever: Retriever
    rows: int = 0
    value: float = 0.0
    gain: float = 0.0
    error: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Choice:
    """Several ways, of which the first is how it is done so far; `taken` is one of them."""

    figure: Figure
    judged: tuple[Judged, ...]
    taken: Retriever


def choice_of(scored: Sequence[tuple[SearchMode, Sequence[float]]]) -> int:
    """Which of several ways, by their scores on the same rows: of those within one standard error of the best the
    cheapest to search by, of equals the first (how it is done so far), then the better.
    """
    efforts = [EFFORT[mode] - (AS_IT_IS if at == 0 else 0.0) for at, (mode, _) in enumerate(scored)]
    return cheapest_within_one_error(
        [Variant(scores, effort) for effort, (_, scores) in zip(efforts, scored, strict=True)]
    )


@dataclass(frozen=True)
class RetrievalJudge:
    """The rows whose neighbours tell without a call how good a retriever is; none where nothing does."""

    work: Workspace

    def figure(self, retriever: Retriever) -> Figure | None:
        """What tells it of this retriever."""
        if retriever.documents and len(self._with_gold) >= LEAST_ROWS:
            return GOLD
        is_labelled = self.work.use_case.task.answers is not None and self.work.tables.get("dev") is not None
        return LABEL if retriever.examples and is_labelled else None

    def choose(self, ways: Sequence[Retriever]) -> Choice | None:
        """The cheapest to search by within one standard error of the best; None where nothing tells."""
        figure = self.figure(ways[0])
        if figure is None:
            return None
        rows = self._with_gold if figure == GOLD else self._dev
        judging = _Judging(self.work, figure, rows)
        scores: dict[Retriever, list[float]] = {}
        judged: list[Judged] = []
        for way in ways:
            try:
                scores[way] = judging.scores(way, best=max(scores.values(), key=sum, default=None))
            except _NotJudged as why:
                judged.append(Judged(way, why=str(why)))
                continue
            gained = paired(scores[way], scores[ways[0]])
            error = gained.error if gained.n > 1 else 0.0
            judged.append(Judged(way, len(rows), sum(scores[way]) / len(rows), gained.mean, error))
        taken = choice_of([(way.mode, each) for way, each in scores.items()])
        return Choice(figure, tuple(judged), list(scores)[taken])

    @cached_property
    def _with_gold(self) -> pd.DataFrame:
        import pandas as pd

        tables = [frame for name in ("dev", "train") if (frame := self.work.tables.get(name)) is not None]
        rows = [frame[[bool(ids) for ids in gold.of(frame)]] for frame in tables]
        return pd.concat([each.head(MOST_ROWS) for each in rows]).head(MOST_ROWS) if rows else pd.DataFrame()

    @cached_property
    def _dev(self) -> pd.DataFrame:
        return seeded(self.work.tables.need("dev"), SALT).head(MOST_ROWS)


class _NotJudged(Exception):  # noqa: N818 - says what happened
    """A way that is left out, and why."""


class _Judging:
    """Rows searched for once, whatever the ways: each is an order of what was found."""

    def __init__(self, work: Workspace, figure: Figure, rows: pd.DataFrame) -> None:
        self._work, self._figure, self._rows = work, figure, rows
        self._near: dict[tuple[str, bool], list[Near]] = {}

    def scores(self, way: Retriever, best: Sequence[float] | None) -> list[float]:
        """A score in [0, 1] for each row. Late interaction is tried on the first rows before token vectors are stored;
        _NotJudged where it is surely behind the best there, by labels (which decide nothing) not surely ahead, or where
        they would take too much.
        """
        (table,) = [each for each in looked_up(way) if (each.table == "documents") == (self._figure == GOLD)]
        index = self._work.index(table.table, table.characters)
        if way.mode == "late" and best is not None:
            self._try(way, index, table.count, best)
        near = self._found(index, is_late=way.mode == "late")
        return [self._score(at, way, each, table.count) for at, each in enumerate(near)]

    def _try(self, way: Retriever, index: Index, count: int, best: Sequence[float]) -> None:
        try:
            index.check_tokens()
        except BadInput as why:
            raise _NotJudged(str(why)) from why
        texts, unstored = list(self._rows["text"][:FIRST_ROWS]), index.unstored()
        first = [Near(unstored, query) for query in index.queries(texts, "late")]
        scores = [self._score(at, way, each, count) for at, each in enumerate(first)]
        ahead = paired(scores, best[: len(scores)])
        if (ahead.mean + ahead.error < 0) if self._figure == GOLD else (ahead.mean <= ahead.error):
            raise _NotJudged(f"on {len(scores)} rows {ahead.mean:+.3f} ± {ahead.error:.3f} against the best so far")
        index.need_tokens()

    def _found(self, index: Index, *, is_late: bool) -> list[Near]:
        known = (index.key, is_late)
        if known not in self._near:
            queries = index.queries(list(self._rows["text"]), "late" if is_late else "dense")
            self._near[known] = [Near(index, query) for query in queries]
        return self._near[known]

    def _score(self, at: int, way: Retriever, near: Near, count: int) -> float:
        if self._figure == GOLD:
            return self._reciprocal_rank(at, near.ranked(DEPTH, way.mode, way.dense_share))
        found = near.ranked(count, way.mode, way.dense_share)
        label = str(self._rows["label"].iloc[at])
        return sum(str(hit.label) == label for hit in found) / count

    def _reciprocal_rank(self, at: int, hits: list[Hit]) -> float:
        return 1.0 / gold_ranks([hits], gold.of(self._rows.iloc[at : at + 1]))[0]
