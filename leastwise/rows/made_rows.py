"""Out-of-scope and shifted rows made of a use case's own: labels held out, unrelated text, shifted gate rows.

It reads no file (`leastwise.rows.tables` does) and decides nothing of what is declined. The same tables give the same
rows.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd


def held_out(frames: Sequence[pd.DataFrame | None], labels: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of these tables whose label is held out, without it."""
    parts = [frame[frame["label"].isin(labels)] for frame in frames if frame is not None and "label" in frame]
    return [rows.drop(columns="label").assign(kind="held_out") for rows in parts if len(rows)]


def check_left(rows: int, left: int, name: str) -> None:
    """BadInput where the labels that are held out leave nothing of a table."""
    if rows and not left:
        raise BadInput(f"data.{name}: has no row but those of data.held_out_labels; add rows with task.labels")


def check_some(made: pd.DataFrame | None, name: str, labelled: Sequence[str], labels: Sequence[str]) -> None:
    """BadInput where inputs to decline are asked for and neither held-out labels nor unrelated text give one."""
    if made is None or made.empty:
        raise BadInput(
            f"data.{name}: nothing to decline can be made: no row of data.{' or data.'.join(labelled)} has a label "
            f"of data.held_out_labels ({', '.join(labels) or 'none are named'}), and data.unrelated "
            "has too few rows; correct the labels (as the tables write them), or add rows"
        )


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
