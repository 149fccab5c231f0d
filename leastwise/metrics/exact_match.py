"""Is a free answer one of the expected ones, but for case, articles, punctuation and blanks?

It knows English articles only and does not say how near a wrong answer is (see `leastwise.metrics.token_f1`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from leastwise.text_forms import is_punctuation, one_form, stands_alone

_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_APART = re.compile(r"([<>]=?) +(?=[-.$]?\d)")  # a comparison from its number
_NO_ZERO = re.compile(r"^([-<>=]*)\.(?=\d)")
_WITHIN_A_NUMBER = ".:/-"
_BEFORE_A_NUMBER, _CLOSING = "$.-=£€", ".,;:!?)]}'\""
MOST_MARKS = 8  # in a row before a number, or behind a name
_SHORT = 2  # letters of a grade or a blood group, whose sign is a part of it


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """1 where the answer equals one of the `expected`, else 0 (SQuAD 1.1: Rajpurkar et al. 2016, section 6.1).

    An empty answer is never right. Raises ValueError without an expected answer: that is no row to score.
    """
    ours = words(answer)
    return float(bool(ours) and ours in [words(each) for each in required(expected)])


def words(text: str) -> list[str]:
    """The words of a text as SQuAD compares them: lower case, without punctuation and the English articles before them.

    Unlike there, numbers keep their point, sign and comparison (1.5 is not 15, -3 not 3), words the + and # they end in
    (C++, C#, A+), a text that is nothing but marks stays as it is, and scripts without blanks between words are
    compared letter by letter (as MLQA: Lewis et al. 2020, section 5.1).
    """
    plain = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), one_form(text).casefold())
    plain = _APART.sub(r"\1", plain)
    found = [word for chunk in plain.split() for word in _words_in(chunk)]
    found = [_NO_ZERO.sub(r"\g<1>0.", word) for word in found]
    last = max((at for at, word in enumerate(found) if word not in _ARTICLES), default=-1)
    return [word for at, word in enumerate(found) if at > last or word not in _ARTICLES] or plain.split()


def required(expected: Sequence[str]) -> Sequence[str]:
    """The expected answers; ValueError where there is none."""
    if not expected:
        raise ValueError("no expected answer: a row without one cannot be scored; leave it out")
    return expected


def _words_in(chunk: str) -> Iterator[str]:
    """The words of what stands between two blanks."""
    word, first = "", next((at for at, char in enumerate(chunk) if char.isalnum()), len(chunk))
    for at, char in enumerate(chunk):
        if stands_alone(char) and not is_punctuation(char):
            if word:
                yield word
            word = ""
            yield char
        elif char == "," and _digit(chunk, at - 1) and _digit(chunk, at + 1):
            yield word
            word = ""
        elif not is_punctuation(char) or _means_something(chunk, at, first):
            word += char
    if word:
        yield word


def _means_something(chunk: str, at: int, first: int) -> bool:
    """Whether the mark there is a part of a number, or of a name that ends in it; blanks are around the chunk, whose
    first letter or digit is at `first`. It looks no further than MOST_MARKS, however long the chunk is.
    """
    char, before = chunk[at], chunk[at - 1 : at]
    if char in _WITHIN_A_NUMBER and _digit(chunk, at - 1) and _digit(chunk, at + 1):
        return True
    if char in "+#" and before:
        return chunk[max(0, at - MOST_MARKS) : at].rstrip("+#")[-1:].isalnum()
    if char == "-" and before == "e" and _digit(chunk, at - 2):
        return _digit(chunk, at + 1)  # of an exponent
    if at < first and (char in "-<>." or (char == "=" and before in tuple("<>"))):
        ahead = chunk[at + 1 : at + 1 + MOST_MARKS]
        return ahead.lstrip("" if char == "." else _BEFORE_A_NUMBER)[:1].isdigit()
    return char == "-" and before.isalpha() and at <= _SHORT and not chunk[at + 1 :].strip(_CLOSING)


def _digit(chunk: str, at: int) -> bool:
    return 0 <= at < len(chunk) and chunk[at].isdigit()
