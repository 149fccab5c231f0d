"""Rows that must lie on one side: those that say nearly the same, and those of one group of `split_by`.

It decides no side (see `leastwise.rows.preparing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leastwise.rows.near_duplicates import Pair, pairs_of


@dataclass(frozen=True)
class Groups:
    """For each row the smallest id of its group, and the pairs of near duplicates that made groups."""

    of_row: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each group of more than one."""
        counts: dict[str, int] = {}
        for name in self.of_row:
            counts[name] = counts.get(name, 0) + 1
        return {name: size for name, size in counts.items() if size > 1}


def groups_of(ids: Sequence[str], said: Sequence[str], given: Sequence[str | None]) -> Groups:
    """The groups of rows, by what they say (`near_duplicates.normalised`) and the group they were given."""
    order = sorted(
        range(len(ids)), key=lambda at: ids[at]
    )  # so that which pairs are looked at does not hang on rows' order
    pairs = [Pair(order[each.one], order[each.other], each.similarity) for each in pairs_of([said[at] for at in order])]
    parents = list(range(len(ids)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    def join(one: int, other: int) -> None:
        first, second = sorted((root(one), root(other)), key=lambda at: ids[at])
        parents[second] = first

    for pair in pairs:
        join(pair.one, pair.other)
    firsts: dict[str, int] = {}
    for at in order:
        if (name := given[at]) is not None:
            join(firsts.setdefault(name, at), at)
    return Groups(tuple(ids[root(at)] for at in range(len(ids))), tuple(pairs))
