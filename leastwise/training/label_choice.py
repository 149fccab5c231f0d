"""Which unlabelled texts a teacher labels: any, or in rounds those a cheap model of its labels so far is unsure of.

How one round is drawn is in `leastwise.evidence.label_choice`. Nothing is chosen where every text is labelled; a task without a
list of answers or an embedder draws at random.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from leastwise.evidence import label_choice
from leastwise.models import reference
from leastwise.models.encoder import embed
from leastwise.use_case.training import Training

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.workspace import Workspace

log = logging.getLogger(__name__)

ROUNDS = 4
Ask = Callable[["pd.DataFrame", str], "pd.DataFrame"]  # texts and the name of the round → id, text, label and more


def labelled_texts(work: Workspace, texts: pd.DataFrame, ask: Ask) -> pd.DataFrame:
    """At most `training.teacher_labels` of `texts` (columns id and text) as the teacher labelled them, in order of asking."""
    wanted = work.use_case.training
    count = min(len(texts), wanted.teacher_labels)
    if count == len(texts) or not _is_active(work, wanted):
        return ask(texts if count == len(texts) else texts.sample(count, random_state=wanted.seed), "all")
    assert work.encoder is not None
    vectors = embed(list(texts["text"]), work.encoder, cache=work.home / "embeddings", threads=2)
    return chosen_in_rounds(texts, vectors, count, wanted.seed, ask)


def chosen_in_rounds(
    texts: pd.DataFrame, vectors: np.ndarray, count: int, seed: int, ask: Ask, rounds: int = ROUNDS
) -> pd.DataFrame:
    """`count` of the texts, labelled in equal rounds: the first spread over all vectors, each later one also unsure.

    Unsure is a logistic regression on the embeddings, fitted on the labels of the rounds before.
    """
    import pandas as pd

    left = np.arange(len(texts))
    taken: list[int] = []
    tables: list[pd.DataFrame] = []
    for number in range(rounds):
        size = (count - len(taken)) // (rounds - number)
        unsure = _uncertainty(vectors, texts, pd.concat(tables), left) if tables else None
        weights = np.ones(len(left)) if unsure is None else label_choice.shortlisted(unsure, size)
        drawn = left[label_choice.choose(vectors[left], weights, size, seed + number, vectors[taken])]
        tables.append(ask(texts.iloc[drawn], f"round-{number + 1}"))
        taken += drawn.tolist()
        left = np.setdiff1d(left, drawn)
    return pd.concat(tables, ignore_index=True)


def _uncertainty(vectors: np.ndarray, texts: pd.DataFrame, labelled: pd.DataFrame, left: np.ndarray) -> np.ndarray:
    at = {row_id: number for number, row_id in enumerate(texts["id"])}
    known = vectors[[at[row_id] for row_id in labelled["id"]]]
    if labelled["label"].nunique() < 2:
        return np.ones(len(left))
    return label_choice.uncertainty(reference.quick_probabilities(known, list(labelled["label"]), vectors[left]))


def _is_active(work: Workspace, wanted: Training) -> bool:
    if wanted.choose_labels == "random":
        return False
    can = work.encoder is not None and work.use_case.task.answers is not None
    if not can:
        log.info("texts are drawn at random: choosing them needs models.embedder and a list of labels")
    return can
