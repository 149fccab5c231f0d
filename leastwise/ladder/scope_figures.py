"""What is reported of out-of-scope and shifted rows beyond their gates: by kind, false declines, and how well scores
tell apart.

It judges nothing: the rows are those the gates looked at, so a kind may have few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from leastwise import metrics
from leastwise.evidence.abstention import auroc
from leastwise.ladder.measured import ExampleRow
from leastwise.metrics.exact_match import words
from leastwise.use_case.task import Task

LEAST_OF_A_KIND = 10


def figures(task: Task, rows: Sequence[ExampleRow]) -> dict[str, float]:
    """Figures of the rows of one evaluation, as `leastwise.evaluating.evaluation` records them."""
    inside, outside, shifted = (
        [row for row in rows if row["set"] == name] for name in ("gate", "ood_decline", "shift_quality")
    )
    reported = {**_by_kind("ood_decline", outside), **_by_kind("shift_quality", shifted)}
    answered = [row for row in inside if row["answer"] is not None]
    if task.decline_label and answered:
        reported["ood.false_decline"] = float(np.mean([_declines(task, str(row["answer"])) for row in answered]))
    scores_inside, scores_outside = ([row["scope"] for row in part if "scope" in row] for part in (inside, outside))
    if scores_inside and scores_outside:
        reported["ood.auroc"] = auroc(scores_inside, scores_outside)
    return reported


def _by_kind(name: str, rows: Sequence[ExampleRow]) -> dict[str, float]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "kind" in row and row["score"] is not None:
            kinds[str(row["kind"])].append(row["score"])
    return {
        f"{name}.of.{_slug(kind)}": float(np.mean(each)) for kind, each in kinds.items() if len(each) >= LEAST_OF_A_KIND
    }


def _slug(kind: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in kind)


def _declines(task: Task, answer: str) -> bool:
    if task.kind == "classification":
        return metrics.normalize(task, answer) == task.decline_label
    return words(answer) == words(task.decline_label or "")
