"""What a teacher says of unlabelled text, as a student learns from it: labels, and probabilities where it tells them.

Only trained weights in process tell the probability of every label; a teacher behind an endpoint gives labels. Which
texts it labels: all, any, or in rounds those a cheap model of its labels so far is unsure of (how one round is drawn is
in `leastwise.evidence.label_choice`). It trains nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.answering.answerer import Answerer, Outage, Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.served import ServedAnswerer
from leastwise.answering.trained import InProcess
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evidence import label_choice
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.ladder.candidate import Candidate
from leastwise.metrics import normalize
from leastwise.metrics.answer import Answer
from leastwise.metrics.task_metric import metric_of
from leastwise.models.encoder import embed
from leastwise.models.machine import THREADS
from leastwise.models.reference import quick_probabilities
from leastwise.progress import EvaluationProgress
from leastwise.use_case.task import Task

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ROUNDS = 4
SLICE = 500  # texts: the most scoring a crash can lose
LABELLING = "teacher labels"  # what progress is called

Ask = Callable[["pd.DataFrame", str], "pd.DataFrame"]  # texts and the name of the round → id, text, label and more


def label_texts(work: Workspace, teacher: Candidate, texts: pd.DataFrame, parts: Path) -> pd.DataFrame:
    """At most `training.teacher_labels` of `texts` (columns id and text) as the teacher labelled them, in order of
    asking.

    Slices are kept in the folder `parts` as they are done, so that a killed labelling goes on from there.
    """
    training, ask = work.use_case.training, _asking(work, teacher, parts)
    count = min(len(texts), training.teacher_labels)
    if count == len(texts) or not _is_active(work):
        return ask(texts if count == len(texts) else texts.sample(count, random_state=training.seed), "all")
    encoder = work.catalogue.encoder
    assert encoder is not None
    vectors = embed(list(texts["text"]), encoder, cache=work.catalogue.embeddings, threads=THREADS)
    return label_in_rounds(texts, vectors, count, training.seed, ask)


def _is_active(work: Workspace) -> bool:
    if work.use_case.training.choose_labels == "random":
        return False
    can = work.catalogue.encoder is not None and work.use_case.task.answers is not None
    if not can:
        log.info("texts are drawn at random: choosing them needs models.embedder and a list of labels")
    return can


def label_in_rounds(
    texts: pd.DataFrame, vectors: npt.NDArray[np.float32], count: int, seed: int, ask: Ask, rounds: int = ROUNDS
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


def _uncertainty(
    vectors: npt.NDArray[np.float32], texts: pd.DataFrame, labelled: pd.DataFrame, left: npt.NDArray[np.intp]
) -> npt.NDArray[np.floating]:
    at = {row_id: number for number, row_id in enumerate(texts["id"])}
    known = vectors[[at[row_id] for row_id in labelled["id"]]]
    if labelled["label"].nunique() < 2:
        return np.ones(len(left))
    return label_choice.uncertainty(quick_probabilities(known, list(labelled["label"]), vectors[left]))


def _asking(work: Workspace, teacher: Candidate, parts: Path) -> Ask:
    """What labels texts (columns id, text) as this teacher does: soft where it tells probabilities, else hard."""

    def ask(texts: pd.DataFrame, name: str) -> pd.DataFrame:
        log.info(f"{teacher.stage} teacher labels {len(texts):,} texts")
        if tells_probabilities(work, teacher):
            return soft_labels(work, teacher, texts, parts / name)
        return hard_labels(work, teacher, texts)

    return ask


def tells_probabilities(work: Workspace, teacher: Candidate) -> bool:
    """Whether the teacher can be asked for the probability of every allowed label: trained weights that
    answer alone.
    """
    return _is_trained_alone(teacher) and work.use_case.task.answers is not None


def _is_trained_alone(teacher: Candidate) -> bool:
    is_trained = teacher.weights is not None and teacher.weights.kind in ("adapter", "merged")
    return is_trained and teacher.cascade is None


def hard_labels(work: Workspace, teacher: Candidate, texts: pd.DataFrame) -> pd.DataFrame:
    """The texts (columns id, text) with the teacher's answer as `label`.

    Raises Outage where the infrastructure lost more than 1% of them: what is kept would be the labels for good.
    """
    answers, task = _answers(work, teacher, texts.assign(label=None)), work.use_case.task
    lost = [answer.error or "lost" for answer in answers if answer.text is None]
    if len(lost) > max(1.0, MAX_LOST_SHARE * len(texts)):
        raise Outage(f"the teacher {teacher.model} lost {len(lost)} of {len(texts)} texts ({lost[0][:200]})")
    labels = [None if answer.text is None else learnable(task, answer.text) for answer in answers]
    return texts[["id", "text"]].assign(label=np.asarray(labels, dtype=object)).dropna()


def learnable(task: Task, answer: str) -> str | None:
    """What a student may learn of an answer: the label it means, or the text itself; None where it is not in the
    format.
    """
    if task.kind == "classification":
        return normalize(task, answer)
    return answer.strip() if metric_of(task)(answer, None).adherence == 1 else None


def _answers(work: Workspace, teacher: Candidate, texts: pd.DataFrame) -> list[Answer]:
    """In one batch where that is wanted of an api teacher, else in slices, each stored before the next."""
    answers: list[Answer] = []
    with ExitStack() as stack:
        answerer: Answerer | InProcess
        if _is_trained_alone(teacher) and teacher.guard is None:
            answerer = InProcess(work, teacher)
        else:
            answerer = stack.enter_context(open_answerer(work, teacher, Payer("distill", "teacher")))
        in_batch = work.use_case.training.label_in_batches
        if in_batch and isinstance(answerer, ServedAnswerer) and answerer.offers_batches:
            return answerer.answer_in_batch(texts)
        for start in range(0, len(texts), SLICE):
            answers += answerer.answer(texts.iloc[start : start + SLICE])
            usd = sum(0.0 if answer.from_store else answer.usd for answer in answers)
            work.display.show_evaluation(EvaluationProgress(LABELLING, len(answers), len(texts), usd, {}))
    return answers


def soft_labels(work: Workspace, teacher: Candidate, texts: pd.DataFrame, parts: Path) -> pd.DataFrame:
    """The texts (columns id, text) with `label`, the teacher's likeliest, and `probabilities` in the order of the
    answers.
    """
    answers = work.use_case.task.answers
    assert answers is not None
    parts.mkdir(parents=True, exist_ok=True)
    slices = []
    answerer = InProcess(work, teacher)
    for start in range(0, len(texts), SLICE):
        rows = texts.iloc[start : start + SLICE]
        slices.append(_slice(answerer, rows, answers, parts / f"{start:07d}.npy"))
        progress = EvaluationProgress(LABELLING, start + len(rows), len(texts), 0.0, {})
        work.display.show_evaluation(progress)
    probabilities = np.concatenate(slices)
    labels = [answers[best] for best in probabilities.argmax(axis=1)]
    return texts[["id", "text"]].assign(label=labels, probabilities=list(probabilities))


def _slice(answerer: InProcess, rows: pd.DataFrame, answers: Sequence[str], part: Path) -> npt.NDArray[np.floating]:
    if part.exists():
        return np.asarray(np.load(part, allow_pickle=False))
    probabilities = np.asarray(answerer.label_probabilities(rows, answers))
    part.parent.mkdir(parents=True, exist_ok=True)  # the state directory may be deleted in the middle
    unfinished = part.with_suffix(".unfinished.npy")
    np.save(unfinished, probabilities, allow_pickle=False)
    unfinished.replace(part)
    return probabilities


def targets(labelled: pd.DataFrame, answers: Sequence[str]) -> npt.NDArray[np.float32]:
    """What a student is to say, of shape (rows, answers), rows sum to 1: probabilities where the table has them.

    Raises BadInput for a table whose probabilities are not one for each answer.
    """
    if "probabilities" not in labelled:
        return np.eye(len(answers), dtype=np.float32)[[answers.index(label) for label in labelled["label"]]]
    probabilities = np.stack([np.asarray(row, dtype=np.float32) for row in labelled["probabilities"]])
    if probabilities.shape[1] != len(answers):
        raise BadInput(
            f"teacher labels: {probabilities.shape[1]} probabilities a text for {len(answers)} answers; remove the "
            "file under labels/ in LEASTWISE_HOME and label again"
        )
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
