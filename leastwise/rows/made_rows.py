"""Out-of-scope and shifted rows made of a use case's own: labels held out, unrelated text, shifted gate rows.

It reads no file (`leastwise.rows.tables` does) and decides nothing of what is declined. The same tables give the same
rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leastwise.rows.shifts import shifted_text

if TYPE_CHECKING:
    import pandas as pd


def held_out(frames: Sequence[pd.DataFrame | None], labels: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of these tables whose label is held out, without it."""
    parts = [frame[frame["label"].isin(labels)] for frame in frames if frame is not None and "label" in frame]
    return [rows.drop(columns="label").assign(kind="held_out") for rows in parts if len(rows)]


def half(unrelated: pd.DataFrame, judges: bool) -> pd.DataFrame:
    """One of two halves of unrelated text, by a hash of it: the one that judges or the one thresholds are chosen on."""
    first = [hashlib.sha256(text.encode()).digest()[0] < 128 for text in unrelated["text"]]
    return unrelated[[each == judges for each in first]].assign(kind="unrelated")


def shifted(gate: pd.DataFrame, shifts: Sequence[str], kind: str) -> pd.DataFrame:
    """Every gate row under one shift, taken in turn; ids say which, and so does column `kind`."""
    named = [shifts[at % len(shifts)] for at in range(len(gate))]
    texts = [
        shifted_text(text, shift, str(row_id))
        for text, shift, row_id in zip(gate["text"], named, gate["id"], strict=True)
    ]
    ids = [f"{row_id}~{shift}" for row_id, shift in zip(gate["id"], named, strict=True)]
    return gate.assign(id=ids, text=texts, **{kind: named})
