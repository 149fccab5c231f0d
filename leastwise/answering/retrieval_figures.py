"""Retrieval measured on its own, against gold documents: how often each search finds them, and what became of the
answers.

It changes no verdict. The rule that says whether retrieval or generation failed is in `leastwise.ladder.grounding`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering.prompts import fit_prompts
from leastwise.answering.retrieval import Index, mean_reciprocal_rank, recall_at_k
from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Candidate, Retriever
from leastwise.ladder.grounding import Grounding, Half, diagnosis, fault
from leastwise.ladder.measured import Measured
from leastwise.record.run import RETRIEVAL, RETRIEVAL_FAULT, RETRIEVAL_MODE, RecordedRun
from leastwise.rows import gold
from leastwise.rows.question import Question
from leastwise.use_case.settings import SearchMode

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

MODES: tuple[SearchMode, ...] = ("dense", "bm25", "hybrid")  # of two that find as much the first is taken
OWN = "own"  # the candidate's own way, where it is none of these
DEPTHS = (1, 5, 20)
MOST_ROWS = 500  # gate rows searched for, three times each: some 30 s at 20 ms a search
LOGGED = ("retrieval.", "quality.gold")  # how the names of these metrics begin


@dataclass(frozen=True)
class RetrievalFigures:
    """Metrics for a run; as tags the diagnosis, where quality is required and any row was scored."""

    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def sentence(self) -> str:
        """The diagnosis in words; empty where there is none."""
        return self.tags.get(RETRIEVAL, "")

    @property
    def note(self) -> str:
        """What the description of the run says beside its gate table, in Markdown; empty where retrieval was not
        measured.
        """
        return f"\n\n{self.sentence}\n\n{_table(self.metrics)}" if self.metrics else ""


NONE = RetrievalFigures({}, {})


class RetrievalMeter:
    """Measures retrieval for the tries of one stage; what is found does not depend on the try, so it is
    searched once.
    """

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._by_depth: dict[Retriever, dict[str, float]] = {}

    def measure(self, candidate: Candidate, measured: Measured) -> RetrievalFigures:
        """Figures of a candidate that puts documents before gate rows with gold; `NONE` of any other. Logs nothing."""
        retriever, rows = candidate.retriever, _with_gold(self._work.question, "gate")
        if retriever is None or not retriever.documents or candidate.stage == "cache" or rows.empty:
            return NONE
        ids, metrics = gold.of(rows), self._searched(rows, retriever)
        documents = [each.documents for each in fit_prompts(self._work, candidate, list(rows["text"]))]
        is_found = [not gold_ids.isdisjoint(each) for gold_ids, each in zip(ids, documents, strict=True)]
        recall = float(np.mean(is_found))
        metrics = metrics | {
            "retrieval.n": float(len(rows)),
            "retrieval.k": float(retriever.documents),
            "retrieval.recall_at_k": recall,
            "retrieval.documents_shown": float(np.mean([len(each) for each in documents])),
        }
        by_id = dict(zip(rows["id"], is_found, strict=True))
        found, missed = (_half(by_id, measured, is_found=which) for which in (True, False))
        metrics |= _half_figures("gold_found", found) | _half_figures("gold_missed", missed)
        quality = self._work.use_case.requirements.quality
        if quality is None or found.n + missed.n == 0:
            return RetrievalFigures(metrics, {})
        grounding = Grounding(
            bound=quality.bound, recall=recall, recall_rows=len(rows), with_gold=found, without_gold=missed
        )
        return RetrievalFigures(metrics, {RETRIEVAL: diagnosis(grounding), RETRIEVAL_FAULT: fault(grounding)})

    def _searched(self, rows: pd.DataFrame, retriever: Retriever) -> dict[str, float]:
        """Every mode over whole documents, and the retriever's own way where that is another."""
        if retriever not in self._by_depth:
            k = retriever.documents
            metrics = search_figures(self._work.index("documents"), rows, k)
            if retriever.dense_share is not None or retriever.chunk_characters:
                own = self._work.index("documents", retriever.chunk_characters)
                metrics |= _figures_of(own, rows, k, OWN, (retriever.mode, retriever.dense_share))
            self._by_depth[retriever] = metrics
        return self._by_depth[retriever]


def read_figures(run: RecordedRun) -> RetrievalFigures:
    """The figures as a stage's run holds them."""
    metrics = {name: value for name, value in run.figures.items() if name.startswith(LOGGED)}
    return RetrievalFigures(metrics, run.tags(RETRIEVAL))


def search_figures(index: Index, rows: pd.DataFrame, k: int) -> dict[str, float]:
    """`retrieval.MODE.recall_at_N` for N in DEPTHS and k (as `recall_at_k`), and `retrieval.MODE.mrr` down to
    rank 20.
    """
    metrics: dict[str, float] = {}
    for mode in MODES:
        metrics |= _figures_of(index, rows, k, mode, (mode, None))
    return metrics


def _figures_of(
    index: Index, rows: pd.DataFrame, k: int, name: str, way: tuple[SearchMode, float | None]
) -> dict[str, float]:
    gold_ids = gold.of(rows)
    hits = index.search(list(rows["text"]), max(*DEPTHS, k), *way)
    figures = {f"recall_at_{depth}": recall_at_k(hits, gold_ids, depth) for depth in DEPTHS}
    figures["recall_at_k"] = recall_at_k(hits, gold_ids, k)
    figures["mrr"] = mean_reciprocal_rank([of_row[: max(DEPTHS)] for of_row in hits], gold_ids)
    return {f"retrieval.{name}.{figure}": value for figure, value in figures.items()}


def with_chosen_mode(work: Workspace, retriever: Retriever) -> Retriever:
    """The retriever with the search that finds most gold documents of dev rows, where `retrieval.mode` is auto.

    By recall at the number of documents shown, then by MRR, then in the order of MODES. The figures go on the climb's
    run.
    """
    if work.use_case.retrieval.mode != "auto":
        return retriever
    rows = _with_gold(work.question, "dev")
    metrics = search_figures(work.index("documents"), rows, retriever.documents)
    best = max(MODES, key=lambda mode: (metrics[f"retrieval.{mode}.recall_at_k"], metrics[f"retrieval.{mode}.mrr"]))
    on_dev = {name.replace("retrieval.", "retrieval.dev.", 1): value for name, value in metrics.items()}
    work.run.write(on_dev, {RETRIEVAL_MODE: best})
    shares = ", ".join(f"{mode} {metrics[f'retrieval.{mode}.recall_at_k']:.2f}" for mode in MODES)
    log.info(f"search: {best}, by recall@{retriever.documents} on {len(rows)} dev rows ({shares})")
    return retriever.model_copy(update={"mode": best})


def _table(metrics: Mapping[str, float]) -> str:
    names = [*(f"recall_at_{depth}" for depth in DEPTHS), "recall_at_k", "mrr"]
    head = f"| search | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    shown = [*MODES, *([OWN] if f"retrieval.{OWN}.mrr" in metrics else [])]
    rows = {mode: [f"{metrics[f'retrieval.{mode}.{name}']:.3f}" for name in names] for mode in shown}
    lines = [f"| {mode} | {' | '.join(figures)} |" for mode, figures in rows.items()]
    words = f"Retrieval alone, over {metrics['retrieval.n']:.0f} gate rows; k is {metrics['retrieval.k']:.0f}:"
    return "\n".join([f"{words}\n", head, *lines])


def _with_gold(question: Question, name: str) -> pd.DataFrame:
    """The first rows of a table that name gold documents; gate rows in the order they are measured in."""
    rows = question.gate.rows if name == "gate" else question.tables.need(name)
    return rows[[bool(ids) for ids in gold.of(rows)]].head(MOST_ROWS)


def _half(by_id: Mapping[str, bool], measured: Measured, *, is_found: bool) -> Half:
    """Quality of the scored gate rows with a gold document before the model, or of those without."""
    of_half = [row for row in measured.rows if row["set"] == "gate" and by_id.get(row["id"]) is is_found]
    scores = [row["score"] for row in of_half if row["score"] is not None]
    return Half(n=len(scores), quality=float(np.mean(scores))) if scores else Half(n=0)


def _half_figures(name: str, half: Half) -> dict[str, float]:
    figures = {f"quality.{name}.n": float(half.n)}
    return figures | ({f"quality.{name}": half.quality} if half.n else {})
