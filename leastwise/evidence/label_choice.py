"""Which unlabelled texts are worth a teacher's label: those a cheap model is unsure of, spread over all there are.

Pure: vectors and probabilities are handed in. Whether this beats drawing at random depends on the data; measure it
(`python -m benchmarks.label_choice`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leastwise.evidence.betting import FloatArray

Vectors = NDArray[np.floating]

SHORTLIST = 3
_AT_ONCE = 256  # labelled rows whose distances are held in memory together


def uncertainty(probabilities: Vectors) -> Vectors:
    """1 - (largest - second largest probability) of each row of (n, labels), in [0, 1], shape (n,).

    Margin sampling (Scheffer, Decomain and Wrobel 2001), as a weight.
    """
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(1.0 - (top[:, 1] - top[:, 0]))


def shortlisted(unsure: Vectors, count: int) -> FloatArray:
    """Weights for `choose`: 1 for the `SHORTLIST` × `count` rows of highest uncertainty, 0 for the rest, shape (n,).

    Uncertainty decides who may be drawn, distance who is: as weights alone the many sure rows win by their number.
    """
    weights = np.zeros(len(unsure))
    weights[np.argsort(-unsure, kind="stable")[: SHORTLIST * count]] = 1.0
    return weights


def choose(
    vectors: Vectors, weights: Vectors, count: int, seed: int, labelled: Vectors | None = None
) -> NDArray[np.int64]:
    """Indexes of `count` distinct rows of `vectors` (n, dimensions), in the order they were drawn.

    k-means++ seeding (Arthur and Vassilvitskii 2007) with weights: each row is drawn with probability proportional to
    its weight times its squared distance to the nearest row drawn before or in `labelled` (m, dimensions). So both what
    is unsure and what is unlike the rest comes early. Rows of no weight, or equal to one drawn, come last, at random.
    """
    n = len(vectors)
    if not 0 <= count <= n or len(weights) != n or (weights < 0).any() or not np.isfinite(weights).all():
        raise ValueError(
            f"choose: {count} of {n} rows with {len(weights)} weights, which must be finite and at least 0"
        )
    rng, norms = np.random.default_rng(seed), np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(n, np.inf)
    labelled = vectors[:0] if labelled is None else labelled
    for start in range(0, len(labelled), _AT_ONCE):
        np.minimum(
            nearest, _squared_distances(vectors, norms, labelled[start : start + _AT_ONCE]).min(axis=1), out=nearest
        )
    left = np.ones(n, dtype=bool)
    drawn: list[int] = []
    while len(drawn) < count:
        chances = np.where(left, weights * np.where(np.isinf(nearest), 1.0, nearest), 0.0)
        total = chances.sum()
        if not total > 0:
            rest = rng.permutation(np.flatnonzero(left))[: count - len(drawn)]
            return np.asarray([*drawn, *rest.tolist()], dtype=np.int64)
        at = int(np.searchsorted(np.cumsum(chances), rng.random() * total, side="right"))
        drawn.append(at)
        left[at] = False
        np.minimum(nearest, _squared_distances(vectors, norms, vectors[at : at + 1])[:, 0], out=nearest)
    return np.asarray(drawn, dtype=np.int64)


def _squared_distances(vectors: Vectors, norms: Vectors, points: Vectors) -> Vectors:
    """Squared distances of n vectors (with their squared `norms`) to m points, shape (n, m)."""
    squared = norms[:, None] - 2.0 * (vectors @ points.T) + np.einsum("ij,ij->i", points, points)
    return np.asarray(np.maximum(squared, 0.0))  # rounding may leave -1e-7 for equal vectors
