"""What is told of the rows before anybody trusts them: lengths, language, personal data, secrets, near duplicates.

It drops nothing and decides nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from leastwise.rows import personal_data
from leastwise.rows.data_quality import SURE_OF_LANGUAGE, other_languages
from leastwise.rows.near_duplicates import Pair

SAMPLED = 1000  # texts whose language is looked at, in the order of their ids
LEAST_CHARACTERS = 20  # a shorter text has no sure language
MOST_LISTED = 50


@dataclass(frozen=True)
class Description:
    """What was found; `language` is empty where no language is that of most texts."""

    characters: tuple[int, int, int]  # of a text: half have at most so many, 95% so many, all so many
    language: str
    other_language: int  # of those looked at
    looked_at: int
    personal: dict[str, int]
    secret: dict[str, int]
    disputed: tuple[tuple[str, str, str, str, float], ...]  # near duplicates under two labels: text, label, text, label

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        half, most, longest = self.characters
        found = [f"lengths: half of the texts have at most {half:,} characters, 95% {most:,}, the longest {longest:,}"]
        if self.language:
            found.append(
                f"language: {self.language}; {self.other_language:,} of {self.looked_at:,} texts looked at are surely "
                "in another"
            )
        for what, kinds in (("personal data", self.personal), ("secrets", self.secret)):
            if kinds:
                said = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
                found.append(f"{what} by form, in so many texts: {said}; data.mask masks them before they go anywhere")
        if self.disputed:
            found.append(
                f"near duplicates under different labels: {len(self.disputed):,} pairs, for a person to look at"
            )
        return found


def described(texts: Sequence[str], labels: Sequence[str], pairs: Sequence[Pair], language: str) -> Description:
    """What is told of labelled rows; `pairs` of near duplicates among them."""
    import numpy as np

    lengths = np.array([len(text) for text in texts])
    half, most = (int(np.quantile(lengths, share)) for share in (0.5, 0.95))
    sample = [text for text in texts if len(text) >= LEAST_CHARACTERS][:SAMPLED]
    spoken = language or _spoken(sample)
    disputed = tuple(
        (texts[each.one], labels[each.one], texts[each.other], labels[each.other], each.similarity)
        for each in pairs
        if labels[each.one] != labels[each.other]
    )
    return Description(
        (half, most, int(lengths.max())),
        spoken,
        sum(each is not None for each in other_languages(sample, spoken or None)),
        len(sample),
        _kinds(texts, personal_data.PERSONAL),
        _kinds(texts, personal_data.SECRET),
        disputed,
    )


def _spoken(sample: Sequence[str]) -> str:
    """The language of texts put together ten at a time, where nearly all of these agree."""
    import py3langid

    edges = [*range(0, len(sample), 10), len(sample)]
    likely = Counter[str]()
    for start, end in pairwise(edges):
        ranked = py3langid.rank(" ".join(sample[start:end]))
        if ranked[0][1] - ranked[1][1] > SURE_OF_LANGUAGE:
            likely[str(ranked[0][0])] += 1
    best = likely.most_common(1)
    return best[0][0] if best and best[0][1] >= 0.8 * likely.total() else ""


def _kinds(texts: Sequence[str], kinds: dict[str, re.Pattern[str]]) -> dict[str, int]:
    found = Counter[str]()
    for text in texts:
        if named := personal_data.kinds_in(text, kinds):
            found.update(named.split(", "))
    return dict(sorted(found.items()))
