"""What labels cost no LLM at all, beside a search: the references fitted on train and tuned on dev, and their vote on
the searched rows.

Row 0 of a climb is measured on gate rows by the same fits (`leastwise.evaluating.reference`), which are kept. It asks
nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from leastwise.answering.workspace import Workspace
from leastwise.models.reference import Reference, fit_reference
from leastwise.rows.gate_rows import seeded

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

MOST_TRAIN_ROWS = 50_000  # more tell little more of it and take hours to embed
NEIGHBOURS = "nearest neighbours"


def fitted_references(work: Workspace) -> list[Reference]:
    """The no-LLM references; of a table with more rows than can be embedded in reasonable time, on a sample."""
    encoder, seed = work.catalogue.encoder, work.use_case.training.seed
    assert encoder is not None
    train, cache, on_chunk = _sample(work, "train"), work.catalogue.embeddings, work.display.show_embedding
    return fit_reference(train, dev_of(work), encoder, cache, seed, on_chunk=on_chunk)


def dev_of(work: Workspace) -> pd.DataFrame:
    """What references are tuned on."""
    return _sample(work, "dev" if work.tables.get("dev") is not None else "train")


def neighbours_vote(work: Workspace, rows: pd.DataFrame) -> float | None:
    """The share of these dev rows that the vote of the nearest training rows has right; None where there is none."""
    train = work.tables.get("train")
    if work.use_case.task.kind != "classification" or work.catalogue.encoder is None or train is None:
        return None
    if train["label"].nunique() < 2 or not len(rows):
        return None
    vote = next(each for each in fitted_references(work) if each.name == NEIGHBOURS)
    said = vote.predict([str(text) for text in rows["text"]])
    return sum(label == str(expected) for label, expected in zip(said, rows["label"], strict=True)) / len(rows)


def _sample(work: Workspace, table: str) -> pd.DataFrame:
    """A table's rows; where there are more than can be embedded in reasonable time, a sample that its content fixes."""
    rows = work.tables.need(table)
    if len(rows) <= MOST_TRAIN_ROWS:
        return rows
    log.info(f"the reference is fitted on {MOST_TRAIN_ROWS:,} of the {len(rows):,} rows of data.{table}")
    return seeded(rows).head(MOST_TRAIN_ROWS)
