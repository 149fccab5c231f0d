"""Labelled rows as worked examples, and which of them a prompt always has. It retrieves none and renders none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.ladder.candidate import Shot
from leastwise.use_case.task import Task, completion_of

if TYPE_CHECKING:
    import pandas as pd


def shot(task: Task, text: str, label: str) -> Shot:
    """A labelled row as a worked example, its answer as the model should say it."""
    return Shot(text=text, label=completion_of(task, label))


def fixed_shots(task: Task, rows: pd.DataFrame | None, count: int) -> tuple[Shot, ...]:
    """The first row of each label in turn, in the order of the table; without labels the first rows; none
    without rows.
    """
    if rows is None:
        return ()
    if task.answers is None:
        first = rows.head(count)
        return tuple(
            shot(task, str(text), str(label)) for text, label in zip(first["text"], first["label"], strict=True)
        )
    taken: list[Shot] = []
    for depth in range(count):
        for _, group in rows.groupby("label", sort=True):
            if len(taken) < count and depth < len(group):
                row = group.iloc[depth]
                taken.append(shot(task, str(row["text"]), str(row["label"])))
        if len(taken) >= count:
            break
    return tuple(taken)
