"""What the search on dev gains: a stage's candidate before and after, on dev rows that the search did not see.

`python -m benchmarks.prompt_search [--use-case alert-triage] [--stages prompt rag] [--rows 200]`. Prints accuracy,
tokens, calls and dollars of both, paired, and every step of the search. Answers are kept: a second run asks nothing.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import numpy as np

from leastwise.answering.answerer import Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evaluating.search.search import SALT, search
from leastwise.evidence.choosing.one_standard_error import interval, paired
from leastwise.ladder.candidate import Candidate
from leastwise.money.search_cost import search_usd
from leastwise.rows.gate_rows import seeded
from tasks.climb import open_climb
from tasks.prompt import prompt_candidates
from tasks.rag import rag_candidates
from tasks.session.workspace import open_workspace

if TYPE_CHECKING:
    import pandas as pd

STARTS = {"prompt": prompt_candidates, "rag": rag_candidates}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", default="alert-triage")
    parser.add_argument("--stages", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--rows", type=int, default=200, help="dev rows, not searched on, that both are compared on")
    asked = parser.parse_args()
    work = open_workspace(open_climb.fn(asked.use_case))
    dev = seeded(work.tables.need("dev"), SALT)
    held = dev.iloc[work.use_case.search.rows :].head(asked.rows)
    print(f"{work.use_case.name}: searched on {work.use_case.search.rows} dev rows, compared on {len(held)} others")
    for stage in asked.stages:
        _compare(work, stage, held)


def _compare(work: Workspace, stage: str, held: pd.DataFrame) -> None:
    start = next(each for each in STARTS[stage](work) if each.prompt and not each.prompt.constrained)
    found = search(work, start.stage, start, search_usd(work.use_case, start.stage))  # type: ignore[arg-type]
    print(f"\n{stage}: {found.words(None)}\n\n{found.as_markdown()}\n")
    if found.candidate is None:
        print(found.problem)
        return
    before, after = _measure(work, start, held, "before"), _measure(work, found.candidate, held, "after")
    gained = paired(after, before)
    print(f"gain {gained.mean:+.3f} ± {gained.error:.3f} (paired, {gained.n} rows)", flush=True)


def _measure(work: Workspace, candidate: Candidate, rows: pd.DataFrame, name: str) -> list[float]:
    with open_answerer(work, candidate, Payer(candidate.stage, "search")) as answerer:
        answers = answerer.answer(rows)
    scores = ExactScorer(work.use_case.task).score(rows, answers)
    values = [math.nan if score is None else score.quality for score in scores]
    low, high = interval(values)
    tokens, usd = (np.mean([getattr(each, what) for each in answers]) for what in ("input_tokens", "usd"))
    took = np.median([each.latency_ms for each in answers if each.latency_ms is not None])
    how = candidate.prompt.how if candidate.prompt else ""
    calls = sum(not each.from_store for each in answers)
    print(
        f"{name:6s} accuracy {np.nanmean(values):.3f} [{low:.3f}, {high:.3f}], {tokens:.0f} tokens in, "
        f"${1000 * usd:.4f} per 1,000, median {took:.0f} ms, {calls} calls ({how})",
        flush=True,
    )
    return values


if __name__ == "__main__":
    main()
