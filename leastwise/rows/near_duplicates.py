"""Texts that say nearly the same: pairs whose three-word sequences overlap by most (Jaccard).

It does not compare all pairs, and knows no meaning. MinHash in bands (Broder 1997; Leskovec, Rajaraman, Ullman, Mining
of Massive Datasets, section 3.4), whole columns at a time in numpy. `benchmarks/data_checks.py` times it with the rest
of the checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.8
WORDS = 3
BANDS, ROWS = 16, 4  # a pair at the threshold is missed with probability (1 - 0.8^4)^16 = 0.02%, at 0.9 with 4e-8
MOST_OF_A_BUCKET = 50  # of more texts in one bucket each is compared with the first ones only
PRIME = np.uint64(4_294_967_311)  # the first above 2^32


@dataclass(frozen=True)
class Pair:
    """Two positions, the first the smaller, and the share of word sequences they have in common."""

    one: int
    other: int
    similarity: float


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> list[Pair]:
    """Pairs of texts at or above the threshold, but for case and punctuation; in order. Exact duplicates are at 1."""
    if len(texts) < 2:
        return []
    sets = [_sequences(text) for text in texts]
    candidates = set()
    for bucket in _buckets(sets):
        for at, one in enumerate(bucket[:MOST_OF_A_BUCKET]):
            candidates |= {(int(one), int(other)) for other in bucket[at + 1 :]}
    pairs = (
        Pair(one, other, len(sets[one] & sets[other]) / len(sets[one] | sets[other]))
        for one, other in sorted(candidates)
    )
    return [pair for pair in pairs if pair.similarity >= threshold]


def _sequences(text: str) -> set[int]:
    import xxhash

    words = re.sub(r"\W+", " ", text.casefold()).split()
    last = max(len(words) - WORDS, 0)
    return {xxhash.xxh32_intdigest(" ".join(words[at : at + WORDS]).encode()) for at in range(last + 1)}


def _buckets(sets: list[set[int]]) -> Iterator[npt.NDArray[np.intp]]:
    """Positions of texts that agree in a whole band of minima, ascending."""
    sizes = np.array([len(each) for each in sets])
    flat = np.fromiter((value for each in sets for value in each), dtype=np.uint64, count=int(sizes.sum()))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rng = np.random.default_rng(0)
    for _ in range(BANDS):
        band = np.zeros(len(sets), dtype=np.uint64)
        for _ in range(ROWS):
            factor, shift = (np.uint64(value) for value in rng.integers(1, 2**31, 2))
            minima = np.minimum.reduceat((flat * factor + shift) % PRIME, starts)
            band = band * np.uint64(0x9E3779B97F4A7C15) + minima  # wraps: only equality matters, and pairs are checked
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, edges):
            if bucket.size > 1:
                yield np.sort(bucket)
