"""What an instruction repeats of the texts it was learned from: it must state rules, not quote rows.

A text of a row counts as copied where `WORDS` words in a row are the same, but for case and punctuation, or all of a
shorter one of at least `LEAST_WORDS`. What the instruction said before is no copy. It knows no paraphrase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from leastwise.rows.near_duplicates import normalised
from leastwise.text_forms import apart

WORDS = 8
LEAST_WORDS = 4  # of a whole text; fewer are mere terms of the trade


class Copied:
    """Finds what texts repeat of these rows."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: set[tuple[str, ...]] = set()
        self._sequences: set[int] = set()
        for text in texts:
            words = _words(text)
            if LEAST_WORDS <= len(words) < WORDS:
                self._whole.add(words)
            self._sequences |= {hash(each) for each in _in_a_row(words, WORDS)}

    def first(self, instruction: str, before: str = "") -> str:
        """The first words that it repeats of a row and `before` does not say; empty where there are none."""
        words, known = _words(instruction), _words(before)
        for length in range(LEAST_WORDS, WORDS + 1):
            said = set(_in_a_row(known, length))
            for each in _in_a_row(words, length):
                is_copy = hash(each) in self._sequences if length == WORDS else each in self._whole
                if is_copy and each not in said:
                    return " ".join(each)
        return ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(apart(normalised(text)).split())


def _in_a_row(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[at : at + length] for at in range(len(words) - length + 1))
