"""Retrieval measured on its own, against gold documents: how often each search finds them, and what became of the answers.

It changes no verdict. The rule that says whether retrieval or generation failed is in `leastwise.ladder.grounding`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering.prompted import prompted
from leastwise.answering.retrieval import mean_reciprocal_rank, recall_at_k
from leastwise.ladder.candidate import Candidate, Retriever
from leastwise.ladder.grounding import Grounding, Half, diagnosis, fault
from leastwise.rows import gold
from leastwise.use_case.settings import SearchMode

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

    from leastwise.answering.workspace import Workspace
    from leastwise.evaluating.evaluation import Measured

log = logging.getLogger(__name__)

MODES: tuple[SearchMode, ...] = ("dense", "bm25", "hybrid")  # of two that find as much the first is taken
DEPTHS = (1, 5, 20)
MOST_ROWS = 500  # gate rows searched for, three times each: some 30 s at 20 ms a search


@dataclass(frozen=True)
class Figures:
    """Metrics for a run; as tags the diagnosis, where quality is required and any row was scored."""

    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def sentence(self) -> str:
        """The diagnosis in words; empty where there is none."""
        return self.tags.get("leastwise.retrieval", "")

    @property
    def note(self) -> str:
        """What the description of the run says beside its gate table, in Markdown; empty where retrieval was not measured."""
        return f"\n\n{self.sentence}\n\n{_table(self.metrics)}" if self.metrics else ""


NONE = Figures({}, {})


def measured_of(work: Workspace, candidate: Candidate, measured: Measured) -> Figures:
    """Figures of a candidate that puts documents before gate rows with gold; `NONE` of any other. Logs nothing."""
    retriever, rows = candidate.retriever, _with_gold(work, "gate")
    if retriever is None or not retriever.documents or candidate.stage == "cache" or rows.empty:
        return NONE
    ids, texts = gold.of(rows), list(rows["text"])
    metrics = dict(searched(work, "gate", retriever.documents))
    shown = [each.documents for each in prompted(work, candidate, texts)]
    is_found = [not gold_ids.isdisjoint(documents) for gold_ids, documents in zip(ids, shown, strict=True)]
    recall = float(np.mean(is_found))
    metrics |= {
        "retrieval.n": float(len(rows)),
        "retrieval.k": float(retriever.documents),
        "retrieval.recall_at_k": recall,
    }
    metrics["retrieval.documents_shown"] = float(np.mean([len(documents) for documents in shown]))
    found, missed = _halves(dict(zip(rows["id"], is_found, strict=True)), measured)
    for name, half in (("gold_found", found), ("gold_missed", missed)):
        metrics |= {f"quality.{name}.n": float(half.n)} | ({f"quality.{name}": half.quality} if half.n else {})
    wanted = work.use_case.requirements.quality
    if wanted is None or found.n + missed.n == 0:
        return Figures(metrics, {})
    seen = Grounding(bound=wanted.bound, recall=recall, recall_rows=len(rows), with_gold=found, without_gold=missed)
    return Figures(metrics, {"leastwise.retrieval": diagnosis(seen), "leastwise.retrieval.fault": fault(seen)})


def logged(run: Run) -> Figures:
    """The figures as a stage's run holds them."""
    metrics = {
        name: value for name, value in run.data.metrics.items() if name.startswith(("retrieval.", "quality.gold"))
    }
    return Figures(
        metrics, {name: value for name, value in run.data.tags.items() if name.startswith("leastwise.retrieval")}
    )


@lru_cache(maxsize=8)  # every try of a stage has the same
def searched(work: Workspace, table: str, k: int) -> Mapping[str, float]:
    """`retrieval.MODE.recall_at_N` for N in DEPTHS and k (as `recall_at_k`), and `retrieval.MODE.mrr` down to rank 20, for every mode."""
    rows = _with_gold(work, table)
    index, gold_ids, metrics = work.index("documents"), gold.of(rows), {}
    for mode in MODES:
        found = index.search(list(rows["text"]), max(*DEPTHS, k), mode)
        metrics |= {f"retrieval.{mode}.recall_at_{depth}": recall_at_k(found, gold_ids, depth) for depth in DEPTHS}
        metrics[f"retrieval.{mode}.recall_at_k"] = recall_at_k(found, gold_ids, k)
        metrics[f"retrieval.{mode}.mrr"] = mean_reciprocal_rank([hits[: max(DEPTHS)] for hits in found], gold_ids)
    return metrics


def with_chosen_mode(work: Workspace, retriever: Retriever) -> Retriever:
    """The retriever with the search that finds most gold documents of dev rows, where `retrieval.mode` is auto.

    By recall at the number of documents shown, then by MRR, then in the order of MODES. The figures go on the climb's run.
    """
    if work.use_case.retrieval.mode != "auto":
        return retriever
    metrics = searched(work, "dev", retriever.documents)
    best = max(MODES, key=lambda mode: (metrics[f"retrieval.{mode}.recall_at_k"], metrics[f"retrieval.{mode}.mrr"]))
    work.log_metrics({name.replace("retrieval.", "retrieval.dev.", 1): value for name, value in metrics.items()})
    work.client.set_tag(work.climb.run_id, "leastwise.retrieval.mode", best)
    shares = ", ".join(f"{mode} {metrics[f'retrieval.{mode}.recall_at_k']:.2f}" for mode in MODES)
    log.info(f"search: {best}, by recall@{retriever.documents} on {len(_with_gold(work, 'dev'))} dev rows ({shares})")
    return retriever.model_copy(update={"mode": best})


def _table(metrics: Mapping[str, float]) -> str:
    names = [*(f"recall_at_{depth}" for depth in DEPTHS), "recall_at_k", "mrr"]
    head = f"| search | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    rows = {mode: [f"{metrics[f'retrieval.{mode}.{name}']:.3f}" for name in names] for mode in MODES}
    lines = [f"| {mode} | {' | '.join(figures)} |" for mode, figures in rows.items()]
    words = f"Retrieval alone, over {metrics['retrieval.n']:.0f} gate rows; k is {metrics['retrieval.k']:.0f}:"
    return "\n".join([f"{words}\n", head, *lines])


def _with_gold(work: Workspace, name: str) -> pd.DataFrame:
    """The first rows of a table that name gold documents; gate rows in the order they are measured in."""
    rows = work.gate_rows("gate")[0] if name == "gate" else work.tables.need(name)
    return rows[[bool(ids) for ids in gold.of(rows)]].head(MOST_ROWS)


def _halves(is_found: Mapping[str, bool], measured: Measured) -> tuple[Half, Half]:
    """Quality of the scored gate rows with a gold document before the model, and of those without."""
    scored = [(row["id"], row["score"]) for row in measured.rows if row["set"] == "gate" and row["score"] is not None]
    halves = []
    for wanted in (True, False):
        scores = [float(score) for row_id, score in scored if is_found.get(row_id) is wanted]  # type: ignore[arg-type, call-overload]
        halves.append(Half(n=len(scores), quality=float(np.mean(scores))) if scores else Half(n=0))
    return halves[0], halves[1]
