"""Texts that say the same, or nearly: pairs whose three-word sequences overlap by most (Jaccard), in any script.

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

from leastwise.text_forms import apart, one_form, says_nothing

THRESHOLD = 0.8
WORDS = 3
BANDS, ROWS = 16, 4  # a pair at the threshold is missed with probability (1 - 0.8^4)^16 = 0.02%, at 0.9 with 4e-8
MOST_OF_A_BUCKET = 50  # of more texts in one bucket each is compared with the first ones only
# Each alternative begins with the marks it may be, so that a text is searched for them fast.
_FACE = r"(?P<face>[:;=]['^-]?[)(\]\[}{|/\\*@<>]+(?![\w/\\])|[)(\]\[}{](?<!\w.)['^-]?[:;=](?!\w)|</?3)"
_NUMBER = (
    r"(?P<number>[.:/-](?<=\d.)(?=\d)|%(?<=\d%)|\$(?=\.?\d)|\.(?<![\w.]\.)(?=\d)|[+#](?<=\w.)[+#]*(?!\w)"
    r"|-(?<![\w)\]]-)(?=[$.]?\d)|[<>]=?(?= ?-?[$.]?\d))"
)
_STAYS, _MARKS, _PLAIN = (
    re.compile(form) for form in (f"{_FACE}|{_NUMBER}", f"{_FACE}|{_NUMBER}|[^\\w\\s]", r"[^\w\s]+")
)
PRIME = np.uint64(4_294_967_311)  # the first above 2^32


@dataclass(frozen=True)
class Pair:
    """Two positions, the first the smaller, and the share of word sequences they have in common."""

    one: int
    other: int
    similarity: float


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> list[Pair]:
    """Pairs of texts at or above the threshold, but for case and punctuation; in order. Exact duplicates are at 1."""
    return pairs_of([normalised(text) for text in texts], threshold)


def pairs_of(said: Sequence[str], threshold: float = THRESHOLD, between: int = 0) -> list[Pair]:
    """The same of `normalised` texts; `between`: only pairs of one of the first so many and one of the rest."""
    if len(said) < 2:
        return []
    sets = [_sequences(text) for text in said]
    candidates = set()
    for bucket in _buckets(sets):
        ours = bucket[bucket < between] if between else bucket
        for at, one in enumerate(ours[:MOST_OF_A_BUCKET]):
            others = bucket[bucket >= between] if between else bucket[at + 1 :]
            candidates |= {(int(one), int(other)) for other in others}
    pairs = (
        Pair(one, other, len(sets[one] & sets[other]) / len(sets[one] | sets[other]))
        for one, other in sorted(candidates)
    )
    return [pair for pair in pairs if pair.similarity >= threshold]


def normalised(text: str) -> str:
    """What counts as the same text: one case and Unicode form, without punctuation, blanks single.

    Only what carries no meaning is taken away: the point and sign of a number, + and # behind a word, emoticons and
    emoji stay, and a text that is nothing but marks stays as it is.
    """
    form = one_form(text).casefold()
    is_plain = form.isascii() and not _STAYS.search(form)
    said = " ".join((_PLAIN.sub(" ", form) if is_plain else _MARKS.sub(_what_stays, form)).split())
    return said or form


def _what_stays(mark: re.Match[str]) -> str:
    if mark.lastgroup == "face":
        return f" {mark[0]} "
    return mark[0] if mark.lastgroup == "number" or not says_nothing(mark[0]) else " "


def _sequences(said: str) -> set[int]:
    import xxhash

    words = apart(said).split()
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
