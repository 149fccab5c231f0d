"""Long documents in parts, cut between paragraphs, else sentences, else words. The parts join back to the document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PART = "leastwise_part"  # the column of the part's number, under a name no table has
ENDS = tuple(re.compile(each) for each in (r"\n\s*\n", r"\n", r"(?<=[.!?:;])\s+", r"\s+"))  # the best place first
LEAST_SHARE = 0.5  # of the length: a part is no shorter for the sake of a better end


def split(text: str, characters: int) -> list[str]:
    """Parts of at most so many characters, 1 or more, with the blanks between them; joined they are the text."""
    parts: list[str] = []
    while len(text) > characters:
        at = _end(text, characters)
        parts.append(text[:at])
        text = text[at:]
    return [*parts, text]


def _end(text: str, characters: int) -> int:
    """Where the next part ends: after the last of the best ends that leave no short part."""
    for end in ENDS:
        places = [found.end() for found in end.finditer(text, 0, characters) if found.end() < len(text)]
        if places and places[-1] >= max(1, LEAST_SHARE * characters):
            return places[-1]
    return characters


def in_parts(rows: pd.DataFrame, characters: int) -> pd.DataFrame:
    """The rows, each as its parts that say anything, numbered from 0, with the id and all else of the row."""
    parts = [
        [(n, part) for n, part in enumerate(split(str(text), characters)) if part.strip()] for text in rows["text"]
    ]
    places = [at for at, of_row in enumerate(parts) for _ in of_row]
    flat = [each for of_row in parts for each in of_row]
    return (
        rows.iloc[places].assign(text=[text for _, text in flat], **{PART: [n for n, _ in flat]}).reset_index(drop=True)
    )
