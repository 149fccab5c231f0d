"""How far a text is from the examples of a use case, as one Gaussian of their embeddings. It declines nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leastwise.models.encoder import embed
from leastwise.models.machine import THREADS

_TIMED_TEXTS = 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """The mean of some vectors, shape (d,), and the inverse of their covariance, shape (d, d)."""

    mean: Floats
    precision: Floats

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32]) -> Gaussian:
        """Of these vectors, shape (n, d); the covariance is shrunk (Ledoit and Wolf 2004), so that fewer examples than
        dimensions do as well.
        """
        from sklearn.covariance import LedoitWolf

        fit = LedoitWolf().fit(vectors)
        return cls(np.asarray(fit.location_, dtype=float), np.asarray(fit.precision_, dtype=float))

    def minus_distance(self, vectors: npt.NDArray[np.float32]) -> Floats:
        """The Mahalanobis distance of each vector, negative, shape (n,)."""
        away = np.asarray(vectors, dtype=float) - self.mean
        return np.asarray(-np.sqrt(np.maximum(np.einsum("nd,de,ne->n", away, self.precision, away), 0.0)))


@dataclass(frozen=True)
class Distance:
    """How far the embedding of a text is from those of some examples.

    Labels are not needed: on the embedded data one Gaussian a class told no more. `fitted` is the Gaussian of the
    examples where it is known and they are not.
    """

    examples: tuple[str, ...]
    encoder: Path
    cache: Path | None = None
    fitted: Gaussian | None = None

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian of the examples."""
        return self.fitted or Gaussian.of(embed(self.examples, self.encoder, cache=self.cache, threads=THREADS))

    def scores(self, texts: Sequence[str]) -> Floats:
        """One score a text, at most 0, higher for what resembles the examples."""
        return self.gaussian.minus_distance(embed(texts, self.encoder, cache=self.cache, threads=THREADS))

    def scoring_ms(self, texts: Sequence[str]) -> float:
        """The median time of scoring one text that was never embedded, milliseconds."""
        self.scores(texts[:1])
        times = []
        for text in texts[:_TIMED_TEXTS]:
            started = time.perf_counter()
            self.gaussian.minus_distance(embed([text], self.encoder, threads=THREADS))
            times.append((time.perf_counter() - started) * 1000)
        return float(np.median(times))
