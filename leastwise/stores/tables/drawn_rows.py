"""What is drawn of tables that may be too long for memory: a stretch of traffic, independent rows of a window.

A table is gone through a block of rows at a time; a few bytes a row are kept until it is known which ones are drawn,
and those are read in a second pass. It checks nothing but that ids are unique.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.stores.tables import table_times, table_values

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.intp]
IsDrawn = npt.NDArray[np.bool_]  # of each row of the table


@dataclass(frozen=True)
class Block:
    """Rows that were checked, without ids where they have none, and when each request came, where that is known."""

    rows: pd.DataFrame
    times: table_times.Times | None = None


Blocks = Callable[[IsDrawn | None], Iterator[Block]]  # the blocks of a table, or what is drawn of each


@dataclass(frozen=True)
class Stretch:
    """Requests that came one after another, in order, with the unix seconds of each where they are known."""

    rows: pd.DataFrame
    seconds: npt.NDArray[np.float64] | None
    of: int  # requests in the whole table


def stretch(blocks: Blocks, most: int, seed_hex: str, source: str) -> Stretch:
    """All requests in the order they came; where there are more than `most`, that many one after another, from where
    the seed says.

    Neighbours and not scattered rows: so they repeat, and are as far apart, as requests really are. What came before
    is not in the cache, which makes its gain look a little smaller. BadInput where two rows have one id.
    """
    seen = _Seen()
    for block in blocks(None):
        seen.add(block, most)
    seen.check_ids(blocks, source)
    seconds = table_times.unix_seconds_of(seen.times, source) if seen.times else None
    if seconds is not None and len(seconds) < seen.count:
        raise BadInput(
            f"{source}: {seen.count - len(seconds):,} of {seen.count:,} rows are in tables that do not say when "
            "requests came, which the others do; move these tables away"
        )
    order = np.arange(seen.count) if seconds is None else np.argsort(seconds, kind="stable")
    if seen.count > most:
        start = int(np.random.default_rng(int(seed_hex[:12], 16)).integers(seen.count - most + 1))
        order = order[start : start + most]
        say_once(
            f"{source}: {most:,} of {seen.count:,} requests are replayed, one after another, from request "
            f"{start + 1:,} on (caching.replay_requests)"
        )
    rows = at_positions((block.rows for block in blocks(_are(order, seen.count))), order) if not seen.kept else None
    if rows is None:
        rows = _together(seen.kept).iloc[order].reset_index(drop=True)
    return Stretch(rows, None if seconds is None else seconds[order], seen.count)


@lru_cache
def say_once(words: str) -> None:
    """A climb reads its tables once a task, and says of them what is to be said once."""
    log.info(words)


@dataclass
class _Seen:
    """What is kept of the rows seen so far: all of them while they are few, afterwards the hash of each id."""

    count: int = 0
    kept: list[pd.DataFrame] = field(default_factory=list)
    ids: list[Hashes] = field(default_factory=list)
    times: list[table_times.Times] = field(default_factory=list)

    def add(self, block: Block, most: int) -> None:
        self.count += len(block.rows)
        if self.count > most:
            self.kept.clear()
        else:
            self.kept.append(block.rows)
        if "id" in block.rows:
            self.ids.append(hashes(block.rows["id"].dropna()))
        if block.times is not None:
            self.times.append(block.times)

    def check_ids(self, blocks: Blocks, source: str) -> None:
        """BadInput naming rows that share an id. While all rows are kept, whoever completes their ids looks at them."""
        if self.kept or not self.ids:
            return
        ordered = np.sort(np.concatenate(self.ids))
        double = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not double.size:
            return
        rows: dict[str, list[int]] = {}
        for block in blocks(None):
            if "id" not in block.rows:
                continue
            ids = block.rows["id"].dropna()
            for row, row_id in ids[np.isin(hashes(ids), double)].items():
                rows.setdefault(str(row_id), []).append(int(str(row)) + 1)
        shared = {row_id: numbers for row_id, numbers in rows.items() if len(numbers) > 1}  # two may share a hash
        if shared:
            shown = ", ".join(map(repr, list(shared)[: table_values.MAX_NAMED_ROWS]))
            named = table_values.named_rows(sorted(number for numbers in shared.values() for number in numbers))
            raise BadInput(f"{source}: {named}: duplicate 'id' {shown}. Give every row its own, or drop one.")


def independent(texts: Hashes, units: Hashes | None, seed: int, most: int) -> Positions:
    """Positions of at most so many distinct texts in seeded order, one of each unit; unit 0 is a unit of its own."""
    order = np.random.default_rng(seed).permutation(len(texts))
    order = order[_firsts(texts[order])]
    if units is not None:
        named = units[order]
        is_first = np.zeros(len(order), dtype=bool)
        is_first[_firsts(named)] = True
        order = order[is_first | (named == 0)]
    return np.asarray(order[:most], dtype=np.intp)


def hashes(values: pd.Series) -> Hashes:
    """64 bits of each value's text, never 0; 0 for one that is missing."""
    import xxhash

    written = (
        0 if is_missing else xxhash.xxh64_intdigest(str(value).encode()) or 1
        for value, is_missing in zip(values.tolist(), values.isna().tolist(), strict=True)
    )
    return np.fromiter(written, dtype=np.uint64, count=len(values))


@dataclass
class Outline:
    """What is kept of a window of any length: hashes of its texts and units, and of all of it in order."""

    unit: str | None
    texts: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    units: Hashes | None = None
    seed: int = 0

    @classmethod
    def of(cls, blocks: Iterable[pd.DataFrame], unit: str | None) -> Outline:
        """Go through the rows once; rows count as their own units where a block lacks the column."""
        digest, texts, units, mark = hashlib.sha256(), list[Hashes](), list[Hashes](), ""
        for block in blocks:
            texts.append(hashes(block["text"]))
            if unit:
                units.append(hashes(block[unit]) if unit in block else np.zeros(len(block), dtype=np.uint64))
            digest.update((mark + "\n".join(block["text"])).encode())
            mark = "\n"
        seed = int(digest.hexdigest()[:8], 16)
        return cls(unit, np.concatenate(texts), np.concatenate(units) if unit else None, seed)

    def drawn(self, most: int) -> Positions:
        """Positions of at most so many independent rows."""
        return independent(self.texts, self.units, self.seed, most)


def at_positions(blocks: Iterable[pd.DataFrame], order: Positions) -> pd.DataFrame:
    """The rows at these positions of the file, in this order, whose blocks carry positions as their index."""
    wanted = np.sort(order)
    picked = [block[np.isin(block.index.to_numpy(), wanted, assume_unique=True)] for block in blocks]
    return _together(picked).loc[order].reset_index(drop=True)


def _together(blocks: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(blocks) if len(blocks) > 1 else blocks[0]


def _are(positions: Positions, of: int) -> IsDrawn:
    drawn = np.zeros(of, dtype=bool)
    drawn[positions] = True
    return drawn


def _firsts(values: Hashes) -> Positions:
    """Where each value stands first, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])
