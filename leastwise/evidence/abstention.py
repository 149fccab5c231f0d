"""Which requests should be declined? Abstention scores compared on dev data, and the threshold under which to decline.

A score is any number that is higher for what a candidate is meant for. It is computed elsewhere (see
`leastwise.answering.guard`); here it is only compared. What a guard is worth is judged by the gate, on
rows its threshold was not chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from leastwise.part import Part, Result

ScoreName = Literal["max_probability", "energy", "distance"]


class Guard(Part):
    """Declines a request whose score is below a threshold, whatever the model would have said."""

    score: ScoreName = Field(
        description="max_probability: of the answer. energy: log-sum-exp of a student's logits (Liu et al. 2020). "
        "distance: minus the Mahalanobis distance of its embedding to the training examples' (Lee et al. 2018, without "
        "classes)."
    )
    below: float = Field(allow_inf_nan=False, description="A lower score declines.")
    embedder: str | None = Field(None, description="URI of the embedding model of distance.")
    examples: str | None = Field(None, description="Hash of the table that distance is measured to.")


class ScoreComparison(Result):
    """One score on dev: the threshold that keeps false declines to what is allowed, and what it declines."""

    score: ScoreName
    below: float
    false_decline: float = Field(ge=0, le=1, description="Share of in-scope rows declined.")
    declined: float | None = Field(None, description="Share of out-of-scope rows declined; None without such rows.")
    auroc: float | None = Field(None, description="Chance that an in-scope row scores above an out-of-scope one.")


def conformal_threshold(in_scope: Sequence[float], most_false_declines: float) -> float:
    """A threshold that a new in-scope score is below with probability at most `most_false_declines`.

    The k-th smallest of n scores, k = floor(share * (n + 1)): a new one, exchangeable with them, is strictly below it
    with probability at most k / (n + 1) (split conformal prediction, Vovk et al. 2005). Where k is 0 the smallest
    score, below which none of these is. Raises ValueError for no scores, one that is no number, or a
    share outside [0, 1).
    """
    ordered = np.sort(np.asarray(in_scope, dtype=float))
    if not ordered.size or not np.isfinite(ordered).all() or not 0 <= most_false_declines < 1:
        raise ValueError(
            f"{ordered.size} scores, share {most_false_declines}: give finite scores and a share in [0, 1)"
        )
    k = math.floor(most_false_declines * (ordered.size + 1) + 1e-9)
    return float(ordered[max(k, 1) - 1])


def auroc(in_scope: Sequence[float], out_of_scope: Sequence[float]) -> float:
    """The chance that an in-scope score is above an out-of-scope one, ties half (Mann-Whitney U over both counts)."""
    from scipy.stats import mannwhitneyu  # takes a second to import, and few processes compare scores

    u = mannwhitneyu(in_scope, out_of_scope, alternative="two-sided").statistic
    return float(u) / (len(in_scope) * len(out_of_scope))


def compare(
    in_scope: Mapping[ScoreName, Sequence[float]],
    out_of_scope: Mapping[ScoreName, Sequence[float]],
    most_false_declines: float,
) -> tuple[ScoreComparison, ...]:
    """Every score at its own threshold, in the order given; `out_of_scope` has the same scores, or is empty."""
    comparisons = []
    for name, inside in in_scope.items():
        below = conformal_threshold(inside, most_false_declines)
        outside = out_of_scope.get(name)
        comparisons.append(
            ScoreComparison(
                score=name,
                below=below,
                false_decline=float(np.mean(np.asarray(inside) < below)),
                declined=None if outside is None else float(np.mean(np.asarray(outside) < below)),
                auroc=None if outside is None else auroc(inside, outside),
            )
        )
    return tuple(comparisons)


def best(compared: Sequence[ScoreComparison]) -> ScoreComparison:
    """The score that declines most of what is out of scope; of equals the one that tells best apart, then the first.

    Without out-of-scope rows nothing tells the scores apart: then the first.
    """
    return max(compared, key=lambda each: (each.declined or 0.0, each.auroc or 0.0))
