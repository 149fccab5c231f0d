"""Which side each group of rows lies on: whole groups, classes in their shares, ordered by a hash of seed and content.

Neither the order of rows nor a clock nor a random state changes it. It reads nothing and moves no row twice but where a
class would else be missing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leastwise.rows.preparing.sizing import JUDGED, quotas

TRAIN = "train"
SPLITS = (*JUDGED, TRAIN)


@dataclass
class _Group:
    """Rows that must stay together: their places, and how many of each class they are."""

    order: str
    rows: list[int]
    labels: Counter[str]


class _Filling:
    """How far each split is filled, class by class."""

    def __init__(self, targets: Mapping[str, Mapping[str, int]]) -> None:
        self.targets = targets
        self.held: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
        self.side: dict[int, str] = {}

    def put(self, group: _Group, name: str) -> None:
        """Put a group on a side, from wherever it was."""
        before = self.side.get(group.rows[0])
        if before:
            self.held[before] -= group.labels
        self.held[name] += group.labels
        self.side |= dict.fromkeys(group.rows, name)

    def lack(self, name: str, group: _Group) -> float:
        """What share of a split's rows of these classes is still missing, by the group's own mix."""
        target, held = self.targets[name], self.held[name]
        lacks = [
            count * (target.get(label, 0) - held[label]) / max(target.get(label, 0), 1)
            for label, count in group.labels.items()
        ]
        return sum(lacks) / group.labels.total()

    def has_room(self, name: str, group: _Group) -> bool:
        """Whether a split takes the whole group without going beyond any class's rows."""
        target, held = self.targets[name], self.held[name]
        return all(held[label] + count <= target.get(label, 0) for label, count in group.labels.items())


def sides(
    ids: Sequence[str], labels: Sequence[str], groups: Sequence[str], sizes: Mapping[str, int], seed: int
) -> list[str]:
    """The split of each row: gate, test, dev or train.

    `groups`: a name for each row; rows of one name are never apart. Large groups come first, each to the split that
    lacks most of what it holds, single rows fill what is left, in the order of their hashes.
    """
    every = _groups(ids, labels, groups, seed)
    counts = Counter(labels)
    targets: dict[str, Mapping[str, int]] = {name: quotas(counts, sizes[name]) for name in JUDGED}
    taken = Counter[str]()
    for target in targets.values():
        taken.update(target)
    targets[TRAIN] = {label: max(0, count - taken[label]) for label, count in counts.items()}
    filling = _Filling(targets)
    large = [group for group in every if len(group.rows) > 1]
    for group in sorted(large, key=lambda each: (-len(each.rows), each.order)):
        fitting = [name for name in SPLITS if filling.has_room(name, group)] or list(SPLITS)
        filling.put(
            group, max(fitting, key=lambda name: (filling.lack(name, group), hash_of(seed, group.order + name)))
        )
    for group in sorted((each for each in every if len(each.rows) == 1), key=lambda each: each.order):
        filling.put(group, next((name for name in JUDGED if filling.has_room(name, group)), TRAIN))
    _complete(every, filling)
    return [filling.side[row] for row in range(len(ids))]


def _groups(ids: Sequence[str], labels: Sequence[str], groups: Sequence[str], seed: int) -> list[_Group]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(groups):
        rows[name].append(row)
    return [
        _Group(hash_of(seed, min(ids[row] for row in held)), held, Counter(labels[row] for row in held))
        for held in rows.values()
    ]


def _complete(every: Sequence[_Group], filling: _Filling) -> None:
    """Move groups to where a class is missing, smallest first, from where it has most and would not run out."""
    with_label: dict[str, list[_Group]] = defaultdict(list)
    for group in sorted(every, key=lambda each: (len(each.rows), each.order)):
        for label in group.labels:
            with_label[label].append(group)
    for label in sorted(with_label):
        if len(with_label[label]) < len(SPLITS):
            continue
        for name in SPLITS:
            if not filling.held[name][label]:
                _fetch(label, name, with_label[label], filling)


def _fetch(label: str, name: str, groups: Sequence[_Group], filling: _Filling) -> None:
    for giver in sorted(SPLITS, key=lambda each: (-filling.held[each][label], SPLITS.index(each))):
        for group in groups:
            if filling.side[group.rows[0]] == giver and all(
                filling.held[giver][each] > count for each, count in group.labels.items()
            ):
                filling.put(group, name)
                return


def missing_classes(labels: Sequence[str], split_of: Sequence[str]) -> dict[str, list[str]]:
    """The splits in which a class has no row, by class."""
    held = {name: {label for label, side in zip(labels, split_of, strict=True) if side == name} for name in SPLITS}
    lacking = {label: [name for name in SPLITS if label not in held[name]] for label in sorted(set(labels))}
    return {label: names for label, names in lacking.items() if names}


def hash_of(seed: int, text: str) -> str:
    """Where a text stands in the order of a seed."""
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()
