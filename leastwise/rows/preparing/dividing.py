"""Cleaned rows divided into the tables of a use case; what must not be seen twice lies on one side, or is put aside.

Labelled rows become train, dev, gate and test, rows out of scope two tables of their own, the rest serves training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.rows.findings.grouping import Groups, groups_of
from leastwise.rows.near_duplicates import Pair
from leastwise.rows.preparing import splitting
from leastwise.rows.preparing.cleaning import REASON, SAID, Cleaned, where
from leastwise.rows.preparing.sizing import JUDGED, Sizes, total_variation
from leastwise.rows.preparing.splitting import SPLITS, TRAIN
from leastwise.rows.sources.plain import GROUP, LABEL, TEXT, TIME

if TYPE_CHECKING:
    import pandas as pd

LEAST_OF_TWO = 40  # fewer rows out of scope are all judged, and none chooses a threshold
TABLES = ("train", "dev", "gate", "test", "unlabelled", "out_of_scope", "out_of_scope_dev", "traffic")


@dataclass(frozen=True)
class Grouped:
    """Cleaned rows with their groups, those of labelled rows first, then out of scope, then unlabelled."""

    cleaned: Cleaned
    groups: Groups

    def part(self, name: str) -> tuple[str, ...]:
        """The groups of the rows of one part."""
        labelled, out = len(self.cleaned.labelled), len(self.cleaned.out_of_scope)
        start, end = {"labelled": (0, labelled), "out_of_scope": (labelled, labelled + out)}.get(
            name, (labelled + out, len(self.groups.of_row))
        )
        return self.groups.of_row[start:end]

    @property
    def labelled_pairs(self) -> list[Pair]:
        """The near duplicates among labelled rows."""
        count = len(self.cleaned.labelled)
        return [pair for pair in self.groups.pairs if pair.one < count and pair.other < count]

    @property
    def units(self) -> int:
        """Labelled rows, or groups of `split_by`, which count once; a row without one is one of its own."""
        given = self.cleaned.labelled[GROUP]
        return int(given.nunique() + given.isna().sum())


@dataclass(frozen=True)
class Divided:
    """The tables, what was put aside, and how well the splits came out."""

    tables: Mapping[str, pd.DataFrame]
    aside: pd.DataFrame
    counts: Mapping[str, int]
    share_off: Mapping[str, float]  # total variation of class shares, of each split against all labelled rows
    missing: Mapping[str, Sequence[str]]  # splits in which a class has no row, by class
    straddling: int  # groups that lie in two splits: 0, or nothing here is to be believed


def grouped(cleaned: Cleaned) -> Grouped:
    """The rows with the groups that must stay on one side."""
    parts = [cleaned.labelled, cleaned.out_of_scope, cleaned.unlabelled]
    ids, said, given = ([value for part in parts for value in part[name]] for name in ("id", SAID, GROUP))
    return Grouped(cleaned, groups_of(ids, said, [each if isinstance(each, str) else None for each in given]))


def divided(rows: Grouped, strata: Sequence[str], sizes: Sizes, seed: int, group_column: str) -> Divided:
    """The tables. `strata`: the class of each labelled row, or one name for all where answers are no labels."""
    cleaned, groups = rows.cleaned, rows.part("labelled")
    labelled = cleaned.labelled
    side_of = splitting.sides(list(labelled["id"]), strata, groups, sizes.of, seed)
    tables = {
        name: _shown(where(labelled, (side == name for side in side_of)), group_column, LABEL)
        for name in (TRAIN, *JUDGED[::-1])
    }
    held = dict(zip(groups, side_of, strict=True))
    out_of_scope, near = cleaned.out_of_scope, [group in held for group in rows.part("out_of_scope")]
    kept = [group for group in rows.part("out_of_scope") if group not in held]
    aside = _with(
        cleaned.aside, where(out_of_scope, near).assign(**{REASON: "out of scope, and nearly a row that is not"})
    )
    judges = _first_half(kept, seed) if len(kept) >= LEAST_OF_TWO else set(kept)
    out_of_scope = where(out_of_scope, (not each for each in near))
    tables["out_of_scope"] = _shown(where(out_of_scope, (group in judges for group in kept)), group_column)
    tables["out_of_scope_dev"] = _shown(where(out_of_scope, (group not in judges for group in kept)), group_column)
    taken = set(kept) | {group for group, side in held.items() if side != TRAIN}
    free = [group not in taken for group in rows.part("unlabelled")]
    tables["unlabelled"] = _shown(where(cleaned.unlabelled, free), group_column)
    tables["traffic"] = _traffic(cleaned.traffic)
    counts = {"out_of_scope_near": sum(near), "unlabelled_near": len(free) - sum(free)}
    every = Counter(strata)
    off = {
        name: total_variation(Counter(s for s, side in zip(strata, side_of, strict=True) if side == name), every)
        for name in SPLITS
    }
    missing = splitting.missing_classes(strata, side_of)
    return Divided(
        {name: tables[name] for name in TABLES if len(tables[name])}, aside, counts, off, missing, _straddling(tables)
    )


def _straddling(tables: Mapping[str, pd.DataFrame]) -> int:
    """Groups of near duplicates, found anew among the rows as they were divided, of which one lies in two splits."""
    from leastwise.rows.near_duplicates import normalised

    rows = sorted(
        (row, text, name) for name in SPLITS for row, text in zip(tables[name]["id"], tables[name][TEXT], strict=True)
    )
    groups = groups_of([row for row, _, _ in rows], [normalised(text) for _, text, _ in rows], [None] * len(rows))
    sides: dict[str, set[str]] = {}
    for group, (_, _, name) in zip(groups.of_row, rows, strict=True):
        sides.setdefault(group, set()).add(name)
    return sum(len(each) > 1 for each in sides.values())


def _first_half(groups: Sequence[str], seed: int) -> set[str]:
    """The groups of about half of the rows, by hash."""
    counts, half, rows = Counter(groups), set[str](), 0
    for group in sorted(counts, key=lambda name: splitting.hash_of(seed, name)):
        if rows >= len(groups) / 2:
            break
        half.add(group)
        rows += counts[group]
    return half


def _shown(rows: pd.DataFrame, group_column: str, *more: str) -> pd.DataFrame:
    frame = rows[["id", TEXT, *more]].astype("str").reset_index(drop=True)
    if group_column:
        frame[group_column] = rows[GROUP].reset_index(drop=True)
    return frame


def _traffic(rows: pd.DataFrame) -> pd.DataFrame:
    """Requests as they came, with their repetition; without labels, which only some may have."""
    from leastwise.stores.tables.table_values import derived_ids

    frame = rows[[TEXT]].astype("str").reset_index(drop=True)
    frame.insert(0, "id", derived_ids(frame[TEXT]))
    if len(rows) and rows[TIME].notna().all():
        frame[TIME] = rows[TIME].reset_index(drop=True)
    return frame


def _with(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([one, other], ignore_index=True) if len(one) and len(other) else other if len(other) else one
