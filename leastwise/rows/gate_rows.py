"""Rows as the gate takes them: in seeded order, in looks, and as units where rows share one (`data.unit_by`).

It scores nothing and reads no table: `leastwise.rows.tables` puts the column UNIT into the tables that are measured.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.evidence import units
from leastwise.evidence.alpha_account import RowHashes
from leastwise.evidence.betting import FloatArray
from leastwise.evidence.examples_needed import LOOK
from leastwise.rows.tables import UNIT

if TYPE_CHECKING:
    import pandas as pd


def gate_hash(table_hash: str, rows: int, unit_by: str | None = None) -> str:
    """Names a gate set and what counts as one example in it."""
    named = f"{table_hash}:{rows}:{LOOK}" + (f":{unit_by}" if unit_by else "")
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def row_hashes(texts: Iterable[str]) -> RowHashes:
    """The rows of a set as the alpha account knows them: by their text alone, in no order, whatever file they lie in.

    Neither labels nor ids nor units belong to it: the same texts labelled anew are the same sample of the traffic.
    Case, spacing and the form of a character are taken away, so that a set cannot seem new by being written otherwise.
    64 bits of BLAKE2b: some two of a million different texts agree with probability 3e-8.
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in set(map(_plain, texts)))
    return np.sort(np.frombuffer(digests, dtype="<u8").astype(np.uint64))


def seeded(frame: pd.DataFrame, seed: str = "") -> pd.DataFrame:
    """The rows in the order they are measured in: each stands where its own text puts it, as if drawn.

    So the same rows in another file, format or order are asked in the same order, a set that grew or was corrected asks
    what it kept before in the order it had, and every answer bought is of use. A text that recurs has a place for each
    time. Where rows share a unit the order is one of units, by their names, whose rows stay together in the order of
    the table.
    """
    if UNIT not in frame:
        texts = frame["text"].map(_plain)
        drawn = [_place(seed, text, nth) for text, nth in zip(texts, texts.groupby(texts).cumcount(), strict=True)]
    else:
        names = {name: _place(seed, str(name), 0) for name in frame[UNIT].unique()}
        drawn = [names[name] for name in frame[UNIT]]
    return frame.iloc[np.argsort(np.array(drawn, dtype=np.uint64), kind="stable")].reset_index(drop=True)


def _plain(text: object) -> str:
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().split())


def _place(seed: str, name: str, nth: int) -> int:
    named = f"{seed}\0{nth}\0{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little")


def looks(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows in slices of one look; no unit is ever split."""
    numbers = unit_numbers(rows)
    order = np.flatnonzero(numbers >= 0)
    order = order[np.argsort(numbers[order] // LOOK, kind="stable")]  # once for all looks, whatever their number
    edges = np.flatnonzero(np.diff(numbers[order] // LOOK)) + 1
    for look in np.split(order, edges) if order.size else ():
        is_slice = look[-1] - look[0] == look.size - 1
        yield rows.iloc[look[0] : look[-1] + 1] if is_slice else rows.iloc[look]


def first_units(rows: pd.DataFrame, most_rows: int) -> pd.DataFrame:
    """The first rows in seeded order, without a unit of which only a part would fit (but at least one unit)."""
    kept = rows.head(most_rows)
    if UNIT not in rows or len(kept) == len(rows):
        return kept
    cut = rows[UNIT].iloc[most_rows]
    whole: pd.DataFrame = kept[kept[UNIT] != cut]
    return whole if len(whole) else rows[rows[UNIT] == cut]


def unit_count(rows: pd.DataFrame | None) -> int:
    """How many examples rows are: units where rows share one, else rows."""
    return 0 if rows is None else int(rows[UNIT].nunique()) if UNIT in rows else len(rows)


def unit_scores(rows: pd.DataFrame, values: Sequence[float]) -> FloatArray:
    """One value for each unit: the mean over its rows, in order of first appearance. Values at least 0, one a row."""
    return units.unit_means(values, unit_numbers(rows).tolist(), high=math.inf)


def unit_numbers(rows: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Each row's unit as a number, counted by first appearance."""
    import pandas as pd

    return pd.factorize(rows[UNIT])[0] if UNIT in rows else np.arange(len(rows), dtype=np.intp)


def whole_units(rows: pd.DataFrame, lost: Sequence[bool]) -> npt.NDArray[np.intp]:
    """Positions of the rows whose unit lost none; `lost` has one entry a row."""
    return whole_among(unit_numbers(rows), lost)


def whole_among(numbers: npt.NDArray[np.intp], lost: Sequence[bool]) -> npt.NDArray[np.intp]:
    """The same, where the number of each row's unit is known."""
    if not any(lost):
        return np.arange(len(numbers), dtype=np.intp)
    return np.flatnonzero(~np.isin(numbers, numbers[np.asarray(lost, dtype=bool)]))
