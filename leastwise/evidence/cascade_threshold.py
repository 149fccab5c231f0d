"""When should a cheap candidate's answer be trusted? The threshold of a cascade, chosen on dev data.

It asks nobody: confidences and scores of the same rows are handed in. What the cascade is worth is judged by the gate,
on rows the threshold was not chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leastwise.part import Part


class Threshold(Part):
    """A chosen threshold and what it comes to on the rows it was chosen on."""

    below: float = Field(ge=0, le=1, description="Answers of a lower confidence escalate; at 1 all do.")
    escalated_share: float = Field(ge=0, le=1)
    quality: float = Field(ge=0, le=1, description="Mean score of the cascade.")


def choose_threshold(
    confidence: Sequence[float], first: Sequence[float], then: Sequence[float], least_quality: float
) -> Threshold:
    """The lowest threshold at which the cascade's mean score is at least `least_quality`; if none is, the best one.

    `confidence` in [0, 1] and the scores of both candidates in [0, 1], one a row in the same order. Of equals the
    lower threshold is taken: it escalates less. Raises ValueError for no rows or columns of unequal length.
    """
    if not confidence or not len(confidence) == len(first) == len(then):
        raise ValueError(
            f"{len(confidence)} confidences, {len(first)} and {len(then)} scores: give one of each a row, at least one"
        )
    order = np.argsort(np.asarray(confidence), kind="stable")
    sure, ours, theirs = (np.asarray(values, dtype=float)[order] for values in (confidence, first, then))
    n = sure.size
    # quality[k]: the k least confident rows escalate; only a k between two different confidences is a threshold
    quality = (np.concatenate([[0.0], np.cumsum(theirs)]) + ours.sum() - np.concatenate([[0.0], np.cumsum(ours)])) / n
    cuts = [k for k in range(n + 1) if k in (0, n) or (sure[k - 1] < sure[k] and _between(sure[k - 1], sure[k]) < 1)]
    enough = [k for k in cuts if quality[k] >= least_quality - 1e-12]
    k = enough[0] if enough else max(cuts, key=lambda cut: (round(float(quality[cut]), 12), -cut))
    below = 0.0 if k == 0 else 1.0 if k == n else float(_between(sure[k - 1], sure[k]))
    return Threshold(below=below, escalated_share=k / n, quality=float(np.clip(quality[k], 0, 1)))


def _between(low: float, high: float) -> float:
    """Halfway, or the higher where no number lies between."""
    half = (low + high) / 2
    return half if half > low else high
