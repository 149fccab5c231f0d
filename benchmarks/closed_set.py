"""How long a stage with `population: this_set` takes by itself, at 8,000 to 100,000 gate rows: no model, no network.

`python -m benchmarks.closed_set [--quick] [--profile]`. Four figures a size: the closed-set test alone, in looks of 25;
the whole evaluation, each row a unit; the same where ten rows share one; and, for its machine, a plain loop in Python
over the rows, as the baseline of the ratio. Answers are right at the bound, so that every row is drawn.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from leastwise.answering.answerer import PlainAnswerer
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence import ClosedSetTest
from leastwise.evidence.examples_needed import LOOK
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.rows.question import JudgedRows
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase

SIZES = (8_000, 50_000, 100_000)
ROWS_A_UNIT = 10
RIGHT = 0.8


class Known(PlainAnswerer):
    """Answers what its column `answer` says."""

    price = None
    usd_worst_case = 0.01
    fixed_usd_per_request = 0.0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """One answer a row, 20 ms and $0.001 each."""
        return [Answer(text, 20.0, 0.001) for text in rows["answer"]]


def rows(count: int, per_unit: int) -> pd.DataFrame:
    answers = np.where(np.random.default_rng(0).permutation(count) < RIGHT * count, "yes", "no")
    frame = pd.DataFrame({"id": [f"g{n}" for n in range(count)], "text": [f"text {n}" for n in range(count)]})
    frame = frame.assign(label="yes", answer=answers)
    return frame.assign(**{UNIT: [f"unit {n // per_unit}" for n in range(count)]}) if per_unit > 1 else frame


def use_case(per_unit: int) -> UseCase:
    unit = {"unit_by": "unit"} if per_unit > 1 else {}
    bounds = {"quality": (RIGHT, 0.0), "adherence": (0.9, 0.0), "usd_per_1k_requests": (5.0, 1.0)}
    return UseCase.model_validate(
        {
            "name": "closed",
            "task": {"instruction": "Say yes or no.", "labels": ["yes", "no"]},
            "data": {"gate": "gate.parquet", "population": "this_set"} | unit,
            "requirements": {name: {"bound": bound, "margin": margin} for name, (bound, margin) in bounds.items()},
            "traffic": {"requests_per_month": 1000},
            "models": {"candidates": [{"uri": "openai:toy"}]},
            "budget_usd": 1.0,
            "allow_no_test": True,
        }
    )


def stage(count: int, per_unit: int) -> None:
    """A whole evaluation; every row is looked at."""
    case, frame = use_case(per_unit), rows(count, per_unit)
    candidate = Candidate(stage="prompt", model="openai:toy", venue="api")
    measured = evaluate(
        case, candidate, Known(), Inputs(JudgedRows(frame, "ab" * 8)), Alphas(0.05, 0.05), ExactScorer(case.task)
    )
    if measured.totals["rows.gate"] != count:
        raise SystemExit(f"{measured.totals['rows.gate']:,} of {count:,} rows were looked at: nothing was measured")


def closed_test(count: int) -> None:
    """The test by itself, an interval asked for once it is drawn out."""
    test, scores = ClosedSetTest(count, RIGHT), (rows(count, 1)["answer"] == "yes").to_numpy(dtype=float)
    for start in range(0, count, LOOK):
        test.add(scores[start : start + LOOK])
    if not 0 < test.lower <= test.upper:
        raise SystemExit("no interval")


def plain_loop(count: int) -> None:
    """What a computer takes for as many rows at the least."""
    total = 0.0
    for row in rows(count, 1).to_dict("records"):
        total += row["answer"] == row["label"]


def seconds(work: Callable[..., None], *sizes: int) -> float:
    started = time.perf_counter()
    work(*sizes)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8,000 rows only")
    parser.add_argument("--profile", action="store_true", help="where the time of the largest evaluation goes")
    args = parser.parse_args()
    stage(LOOK * 4, 1)  # imports are no part of it
    sizes = SIZES[:1] if args.quick else SIZES
    print("| rows | test alone | evaluation | ten rows a unit | a plain loop | evaluation to loop |")
    print("|---|---|---|---|---|---|")
    for count in sizes:
        alone = seconds(closed_test, count)
        whole, shared = seconds(stage, count, 1), seconds(stage, count, ROWS_A_UNIT)
        loop = seconds(plain_loop, count)
        print(f"| {count:,} | {alone:.1f} s | {whole:.1f} s | {shared:.1f} s | {loop:.2f} s | {whole / loop:.0f} |")
    if args.profile:
        profile = cProfile.Profile()
        profile.runcall(stage, sizes[-1], 1)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(25)


if __name__ == "__main__":
    main()
