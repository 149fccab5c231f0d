"""Has the traffic changed? Two-sample tests of a recent window of embeddings against a reference.

It does not embed, schedule or judge quality: drift is a reason to look again (`flows.drift`), never a verdict. Each
test is for one window compared once; a window a week at alpha .05 alarms falsely about 2.6 times a year.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, stats
from scipy.spatial.distance import cdist

from leastwise.errors import BadInput
from leastwise.evidence.betting import FloatArray

MOST_ROWS = 1_000
LEAST_ROWS = 10
PERMUTATIONS = 999
SHRINKAGE = 0.2


@dataclass(frozen=True)
class Drift:
    """Whether a window differs from the reference: two tests, each at alpha / 2, and the reason in words.

    `mmd` is the squared maximum mean discrepancy (unbiased, so it may be below 0); `auc` how well a linear classifier
    tells held-out window rows from held-out reference rows (0.5 = not at all).
    """

    drifted: bool
    p_mmd: float
    p_domain: float
    mmd: float
    auc: float
    reason: str


def drift_test(reference: ArrayLike, window: ArrayLike, alpha: float = 0.05, seed: int = 0) -> Drift:
    """Do two samples of embeddings (n x d and m x d, at least 10 rows each) come from one distribution?

    The kernel test sees a changed mix of topics, the classifier a small shift of everything; each misses the other's
    case, hence both, at alpha / 2 (Bonferroni). Beyond 1,000 rows a side a seeded sample is tested.
    """
    rng = np.random.default_rng(seed)
    old, new = _rows(reference, "reference", rng), _rows(window, "window", rng)
    if old.shape[1] != new.shape[1]:
        raise BadInput(f"reference has {old.shape[1]} dimensions, window {new.shape[1]}: embed both with one model")
    mmd, p_mmd = _mmd(old, new, rng)
    auc, p_domain = _domain(old, new, rng)
    reasons = [f"kernel test p = {p_mmd:.3f}"] * (p_mmd <= alpha / 2)
    reasons += [f"a classifier tells the window apart, AUC {auc:.2f}, p = {p_domain:.2g}"] * (p_domain <= alpha / 2)
    quiet = f"no difference beyond chance (kernel p = {p_mmd:.3f}, classifier p = {p_domain:.3f})"
    return Drift(bool(reasons), p_mmd, p_domain, mmd, auc, "; ".join(reasons) or quiet)


def _rows(sample: ArrayLike, name: str, rng: np.random.Generator) -> FloatArray:
    rows = np.asarray(sample, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] < LEAST_ROWS:
        raise BadInput(f"{name}: needs at least {LEAST_ROWS} embeddings as rows, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise BadInput(f"{name}: row {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not finite: embed it again")
    if len(rows) > MOST_ROWS:
        rows = rows[rng.choice(len(rows), MOST_ROWS, replace=False)]
    return rows


def _mmd(old: FloatArray, new: FloatArray, rng: np.random.Generator) -> tuple[float, float]:
    """Squared MMD with a Gaussian kernel of median width and its permutation p-value (Gretton et al., JMLR 2012)."""
    both = np.vstack([old, new])
    squared = cdist(both, both, "sqeuclidean")
    width = float(np.median(squared[np.triu_indices(len(both), 1)])) or 1.0
    kernel = np.exp(-squared / width)
    np.fill_diagonal(kernel, 0.0)
    n, m = len(old), len(new)
    in_old = np.zeros((PERMUTATIONS + 1, n + m))
    in_old[:, :n] = 1.0
    in_old[1:] = rng.permuted(in_old[1:], axis=1)
    to_old = in_old @ kernel
    within_old = (to_old * in_old).sum(axis=1)
    across = (to_old * (1 - in_old)).sum(axis=1)
    within_new = kernel.sum() - within_old - 2 * across
    mmd = within_old / (n * (n - 1)) + within_new / (m * (m - 1)) - 2 * across / (n * m)
    return float(mmd[0]), _p_value(float(mmd[0]), mmd[1:])


def _domain(old: FloatArray, new: FloatArray, rng: np.random.Generator) -> tuple[float, float]:
    """AUC on held-out halves of a linear discriminant fitted on the others, p-value by the rank-sum test.

    The discriminant is closed-form with the covariance shrunk towards a multiple of the identity; since it is fixed
    before the held-out halves are looked at, the p-value is valid (classifier two-sample test, arXiv 1610.06545).
    """
    old, new = rng.permutation(old), rng.permutation(new)
    (fit_old, held_old), (fit_new, held_new) = np.array_split(old, 2), np.array_split(new, 2)
    centred = np.vstack([fit_old - fit_old.mean(axis=0), fit_new - fit_new.mean(axis=0)])
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * float(np.trace(covariance)) / len(covariance) + 1e-12
    shrunk = (1 - SHRINKAGE) * covariance + ridge * np.eye(len(covariance))
    direction = linalg.solve(shrunk, fit_new.mean(axis=0) - fit_old.mean(axis=0), assume_a="pos")
    ranked = stats.mannwhitneyu(held_new @ direction, held_old @ direction, alternative="greater")
    return float(ranked.statistic) / (len(held_old) * len(held_new)), float(ranked.pvalue)


def _p_value(seen: float, permuted: FloatArray) -> float:
    return float((1 + np.sum(permuted >= seen - 1e-12)) / (1 + permuted.size))
