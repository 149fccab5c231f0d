"""Shifted inputs made of ordinary ones: typos, letter case, length.

The label stays, so that quality under shift can be measured. Paraphrases and inputs from another source cannot be made
without a person or a model: give them as `data.shifted`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable


def shifted_text(text: str, shift: str, seed: str) -> str:
    """The text under a shift of `SHIFTS`; equal seeds give equal texts."""
    return SHIFTS[shift](text, random.Random(seed))


def _typos(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped, one dropped or one doubled, about every twentieth character."""
    letters = list(text)
    for index in range(1, len(letters) - 1):
        if letters[index].isalpha() and letters[index + 1].isalpha() and rng.random() < 0.05:
            edit = rng.randrange(3)
            if edit == 0:
                letters[index], letters[index + 1] = letters[index + 1], letters[index]
            else:
                letters[index] = "" if edit == 1 else letters[index] * 2
    return "".join(letters)


def _shorter(text: str, _: random.Random) -> str:
    words = text.split()
    return " ".join(words[: max(8, len(words) * 6 // 10)])


def _longer(text: str, _: random.Random) -> str:
    return (
        "Hand-over note from the night shift, copied out of the ticket as it stands, nothing in it has been checked "
        f"again since: {text} No reply from the site yet, the next call is planned for this afternoon, thank you."
    )


SHIFTS: dict[str, Callable[[str, random.Random], str]] = {
    "typos": _typos,
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: re.sub(r"[.,;:!?]+(?=\s|$)", "", text.lower()),
    "shorter": _shorter,
    "longer": _longer,
}
