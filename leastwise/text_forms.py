"""One Unicode form for texts that are the same to a reader: composed, of one width, without invisible characters.

It takes away only what carries no meaning: superscripts, fractions and circled numbers stay (10² is not 102), emoji
stay, and so do case and punctuation. Who compares texts says what else may differ.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Unicode Character Database, property Decomposition_Type: forms of one character that differ in looks only.
_SAME = frozenset(
    {"<wide>", "<narrow>", "<noBreak>", "<compat>", "<font>", "<initial>", "<medial>", "<final>", "<isolated>"}
)
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_QUOTES = dict.fromkeys(map(ord, "‘’‚‛ʼ′"), "'") | dict.fromkeys(map(ord, "“”„‟″"), '"')
_SIGNS = {ord("٫"): ".", ord("٬"): ",", ord("≥"): ">=", ord("≤"): "<="}
_TATWEEL = "\u0640"  # stretches an Arabic word and says nothing
# Zero-width space and marks of direction, joiners but for those between emoji, selectors of a glyph, soft hyphens.
_INVISIBLE = re.compile(
    "[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad\u034f\u180e\ufe00-\ufe0f" + _TATWEEL + "]"
)
_NOTHING = re.compile(
    "[\\s\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad\u034f\u180e\ufe00-\ufe0f\u115f\u1160\u2800\u3164\uffa0]*"
)
_JOINER = re.compile("(?<![\u2190-\u2bff\U0001f000-\U0001faff])[\u200c\u200d]")


def shows_nothing(text: str) -> bool:
    """Whether a text is blank to a reader: empty, or nothing but blanks, marks of direction and other invisible
    characters.
    """
    return _NOTHING.fullmatch(text) is not None


def storable(text: str) -> str:
    """The text as any database takes it: half a character, which no encoding has, is a question mark, and the character
    of no width that ends texts in C is the sign for one that cannot be shown.
    """
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def one_form(text: str) -> str:
    """The text composed (NFC), of one width, with plain digits, dashes and quotes, single blanks, nothing invisible."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
        text = _JOINER.sub("", text)
        text = unicodedata.normalize("NFC", "".join(map(_plain, text)))
        text = text.translate(_DASHES | _QUOTES | _SIGNS)
    return " ".join(text.split())


@lru_cache(maxsize=65536)
def _plain(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    tag, _, _ = unicodedata.decomposition(char).partition(" ")
    return unicodedata.normalize("NFKC", char) if tag in _SAME else char


@lru_cache(maxsize=65536)
def is_punctuation(char: str) -> bool:
    """Whether a character is one of ASCII's marks and symbols, or of the punctuation of any script."""
    return (char.isascii() and not char.isalnum() and char.isprintable() and char != " ") or unicodedata.category(
        char
    ).startswith("P")


@lru_cache(maxsize=65536)
def says_nothing(char: str) -> bool:
    """Whether a character is punctuation or none that is shown."""
    return is_punctuation(char) or unicodedata.category(char).startswith("C")


def stands_alone(char: str) -> bool:
    """Whether a letter is of a script that writes no blanks between words (Chinese, Japanese, Thai, Lao, Khmer …)."""
    return bool(_ALONE.match(char))


def apart(text: str) -> str:
    """The text with blanks around every letter that stands alone."""
    return text if text.isascii() else _ALONE.sub(r" \g<0> ", text)


# Thai and Lao, Tibetan, Myanmar, Khmer, CJK radicals, Hiragana, Katakana and Bopomofo, ideographs.
_ALONE = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
