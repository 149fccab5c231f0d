"""The checks that `prepare` makes of somebody's rows, made of the tables of a use case as they lie.

Nothing is refused here: what must not be is refused by `leastwise.rows.splits` and the suites of `expectations/`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.ladder.premises import Found
from leastwise.rows.findings.describing import described
from leastwise.rows.findings.grouping import Groups, groups_of
from leastwise.rows.findings.word_reference import word_reference
from leastwise.rows.gate_rows import unit_count
from leastwise.rows.near_duplicates import normalised
from leastwise.rows.tables import Tables

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "dev", "gate", "test")
MOST_OF_A_TABLE = 20_000  # rows of each table that are looked at; more take longer than advice may


MOST_SHOWN = 5  # of near duplicates under different labels


@dataclass(frozen=True)
class _Rows:
    """The labelled rows of all splits, one after another."""

    splits: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[str]
    groups: Groups


def found_in(tables: Tables) -> Found:
    """What is found in train, dev, gate and test; about 3 s for 13,000 rows. Raises what reading a table raises."""
    frames = {name: frame for name in SPLITS if (frame := tables.get(name)) is not None and len(frame)}
    looked_at = {name: frame.head(MOST_OF_A_TABLE) for name, frame in frames.items()}
    rows = _rows(looked_at)
    counts = {name: Counter(frame["label"].dropna()) for name, frame in looked_at.items()}
    is_enumerated = tables.use_case.task.answers is not None
    description = described(rows.texts, rows.labels, rows.groups.pairs, tables.use_case.data.language or "")
    lines = [f"{name}: {len(frame):,} rows" + _labels(counts[name], is_enumerated) for name, frame in frames.items()]
    longer = [name for name, frame in frames.items() if len(frame) > MOST_OF_A_TABLE]
    lines += [f"looked at are the first {MOST_OF_A_TABLE:,} rows of data.{name}" for name in longer]
    lines += description.lines
    lines += [
        f"nearly the same ({alike:.0%} alike): {label!r} {one!r:.120}, {others!r} {other!r:.120}"
        for one, label, other, others, alike in description.disputed[: MOST_SHOWN if is_enumerated else 0]
    ]
    lines += _shares(counts) if is_enumerated else []
    lines += _straddling(rows)
    words = _words(looked_at) if is_enumerated else None
    if words:
        quality, lower, count = words
        lines.append(
            f"without any model: words in a linear classifier reach {quality:.3f} on dev ({count:,} rows), surely "
            f"{lower:.3f}"
        )
    return Found(
        lines=tuple(lines),
        gate_units=unit_count(frames.get("gate")),
        unanswerable=unanswerable(rows.splits, rows.labels, rows.groups) if is_enumerated else 0,
        words_lower=words[1] if words else None,
    )


def unanswerable(splits: Sequence[str], labels: Sequence[str], groups: Groups) -> int:
    """Gate rows that are wrong whatever is answered, if what says nearly the same is answered alike: of each group of
    near duplicates those without its commonest label.
    """
    held: dict[str, Counter[str]] = defaultdict(Counter)
    for split, label, group in zip(splits, labels, groups.of_row, strict=True):
        if split == "gate":
            held[group][label] += 1
    return sum(each.total() - max(each.values()) for each in held.values())


def _rows(frames: Mapping[str, pd.DataFrame]) -> _Rows:
    splits = [name for name, frame in frames.items() for _ in range(len(frame))]
    texts = [str(text) for frame in frames.values() for text in frame["text"]]
    labels = [str(label) for frame in frames.values() for label in frame["label"]]
    ids = [f"{name} {row}" for name, frame in frames.items() for row in range(len(frame))]
    groups = groups_of(ids, [normalised(text) for text in texts], [None] * len(texts))
    return _Rows(splits, texts, labels, groups)


def _labels(counts: Counter[str], is_enumerated: bool) -> str:
    if not is_enumerated or not counts:
        return ""
    (most, often), (least, rarely) = counts.most_common()[0], counts.most_common()[-1]
    shown = f"{most!r} most often ({often / counts.total():.1%}), {least!r} least ({rarely:,} rows)"
    return f", {len(counts):,} labels; {shown}"


def _shares(counts: Mapping[str, Counter[str]]) -> list[str]:
    """How far the shares of labels are off between splits (total variation), and labels that a split lacks."""
    every = Counter[str]()
    for each in counts.values():
        every.update(each)
    off = {name: _total_variation(each, every) for name, each in counts.items() if each}
    shown = ", ".join(f"{name} {each:.3f}" for name, each in off.items())
    said = [f"shares of labels off by (total variation): {shown}"]
    for name, each in counts.items():
        if lacking := sorted(set(every) - set(each)):
            shown = ", ".join(map(repr, lacking[:5])) + (" and others" if len(lacking) > 5 else "")
            said.append(f"data.{name} has no row of {len(lacking):,} labels: {shown}")
    return said


def _total_variation(some: Counter[str], every: Counter[str]) -> float:
    one, other = some.total(), every.total()
    return sum(abs(some[name] / one - count / other) for name, count in every.items()) / 2


def _straddling(rows: _Rows) -> list[str]:
    """Near duplicates that lie in two splits, by which two; and how many lie within one."""
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for split, group in zip(rows.splits, rows.groups.of_row, strict=True):
        sides[group][split] += 1
    across = Counter(" and ".join(sorted(each, key=SPLITS.index)) for each in sides.values() if len(each) > 1)
    within = Counter(next(iter(each)) for each in sides.values() if len(each) == 1 and each.total() > 1)
    said = ", ".join(f"{count:,} in {names}" for names, count in across.most_common()) or "none"
    own = ", ".join(f"{within[name]:,} within {name}" for name in SPLITS if within[name]) or "none within one"
    return [f"groups of near duplicates that lie in two splits: {said}; {own}"]


def _words(frames: Mapping[str, pd.DataFrame]) -> tuple[float, float, int] | None:
    """What words alone reach on dev: quality, what is sure of it, rows; None where it cannot be fitted or measured."""
    train, dev = frames.get("train"), frames.get("dev")
    if train is None or dev is None or train["label"].nunique() < 2:
        return None
    reference = word_reference((list(train["text"]), list(train["label"])), (list(dev["text"]), list(dev["label"])))
    return reference.quality, reference.lower, reference.rows
