"""What a teacher says of unlabelled text, as a student learns from it: labels, and probabilities where it tells them.

Only trained weights in process tell the probability of every label; a teacher behind an endpoint gives labels. It chooses
no texts (`leastwise.training.label_choice` does) and trains nothing. How a student compares with its teacher is said here too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prefect import task

from leastwise import evidence, ladder
from leastwise.answering import answering
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import evaluation
from leastwise.ladder.candidate import Candidate
from leastwise.metrics import normalize, task_metric
from leastwise.metrics.answer import Answer
from leastwise.record import run_record, tracking
from leastwise.rows.gate_rows import unit_scores, whole_units
from leastwise.training import label_choice
from tasks import console

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.use_case.task import Task

log = logging.getLogger(__name__)

_SLICE = 500  # texts: the most scoring a crash can lose


def asking(work: Workspace, teacher: Candidate, parts: Path) -> label_choice.Ask:
    """What labels texts (columns id, text) as this teacher does: soft where it tells probabilities, else hard."""

    def ask(texts: pd.DataFrame, name: str) -> pd.DataFrame:
        log.info(f"{teacher.stage} teacher labels {len(texts):,} texts")
        if tells_probabilities(work, teacher):
            return soft_labels(work, teacher, texts, parts / name)
        return hard_labels(work, teacher, texts)

    return ask


def hard_labels(work: Workspace, teacher: Candidate, texts: pd.DataFrame) -> pd.DataFrame:
    """The texts (columns id, text) with the teacher's answer as `label`, without those it lost."""
    answers = labelled(work, teacher, texts.assign(label=None))
    labels = [taught(work.use_case.task, answer.text) if answer.text is not None else None for answer in answers]
    return texts[["id", "text"]].assign(label=labels).dropna()


def taught(task: Task, answer: str) -> str | None:
    """What a student may learn of an answer: the label it means, or the text itself; None where it is not in the format."""
    if task.kind == "classification":
        return normalize(task, answer)
    return answer.strip() if task_metric.metric_of(task)(answer, None).adherence == 1 else None


def labelled(work: Workspace, teacher: Candidate, texts: pd.DataFrame) -> list[Answer]:
    """The teacher's answers: in one batch where that is wanted of an api teacher, else in slices, each stored before the next."""
    answers: list[Answer] = []
    with answering.open_answerer(work, teacher, answering.Payer("distill", "teacher")) as answerer:
        in_batch = work.use_case.training.label_in_batches and isinstance(answerer, answering.ServedAnswerer)
        if in_batch and answerer.offers_batches:
            return answerer.answer_in_batch(texts)
        for start in range(0, len(texts), _SLICE):
            answers += answerer.answer(texts.iloc[start : start + _SLICE])
            usd = sum(0.0 if answer.from_store else answer.usd for answer in answers)
            console.show_progress(evaluation.Progress("teacher labels", len(answers), len(texts), usd, {}))
    return answers


def tells_probabilities(work: Workspace, teacher: Candidate) -> bool:
    """Whether the teacher can be asked for the probability of every allowed label: trained weights that answer alone."""
    trained = teacher.weights is not None and teacher.weights.kind in ("adapter", "merged")
    return trained and teacher.cascade is None and work.use_case.task.answers is not None


def soft_labels(work: Workspace, teacher: Candidate, texts: pd.DataFrame, parts: Path) -> pd.DataFrame:
    """The texts (columns id, text) with `label`, the teacher's likeliest, and `probabilities` in the order of the answers.

    Slices are kept in the folder `parts` as they are done, so that a killed labelling goes on from there.
    """
    answers = work.use_case.task.answers
    assert answers is not None
    parts.mkdir(parents=True, exist_ok=True)
    found = []
    with answering.open_answerer(work, teacher) as answerer:
        for start in range(0, len(texts), _SLICE):
            found.append(_slice(answerer, texts.iloc[start : start + _SLICE], answers, parts / f"{start:07d}.npy"))
            done = min(start + _SLICE, len(texts))
            console.show_progress(evaluation.Progress("teacher labels", done, len(texts), 0.0, {}))
    probabilities = np.concatenate(found)
    labels = [answers[best] for best in probabilities.argmax(axis=1)]
    return texts[["id", "text"]].assign(label=labels, probabilities=list(probabilities))


def _slice(answerer: Any, rows: pd.DataFrame, answers: Sequence[str], part: Path) -> np.ndarray:
    if part.exists():
        return np.asarray(np.load(part, allow_pickle=False))
    found = np.asarray(answerer.label_probabilities(rows, answers))
    unfinished = part.with_suffix(".unfinished.npy")
    np.save(unfinished, found, allow_pickle=False)
    unfinished.replace(part)
    return found


def targets(labelled: pd.DataFrame, answers: Sequence[str]) -> np.ndarray:
    """What a student is to say, float32 of shape (rows, answers), rows sum to 1: probabilities where the table has them.

    Raises BadInput for a table whose probabilities are not one for each answer.
    """
    if "probabilities" not in labelled:
        return np.eye(len(answers), dtype=np.float32)[[answers.index(label) for label in labelled["label"]]]
    found = np.stack([np.asarray(row, dtype=np.float32) for row in labelled["probabilities"]])
    if found.shape[1] != len(answers):
        raise BadInput(
            f"teacher labels: {found.shape[1]} probabilities a text for {len(answers)} answers; remove the file under "
            "labels/ in LEASTWISE_HOME and label again"
        )
    return np.asarray(found / found.sum(axis=1, keepdims=True))


@task(name="compare with the teacher")
def compare_with_teacher(climb_id: str, run_id: str) -> None:
    """Student against teacher on the gate rows both answered: agreement, and how much worse it may be at most.

    As in the gate, rows that share a unit count once, and a unit of which either lost a row does not count.
    """
    work = Workspace.of(climb_id)
    best = ladder.teacher([record for record in work.history() if record.stage != "distill"])
    if best is None:
        return
    teacher_run = tracking.latest_run(work.client, work.climb, best.stage)
    both = _answered_by_both(work, run_id, teacher_run.info.run_id)
    if both.empty:
        log.info(f"student and its {best.stage} teacher answered no gate row in common")
        return
    ours, theirs = (unit_scores(both, both[name].tolist()) for name in ("score", "score_teacher"))
    quality = work.use_case.requirements.bounds.get("quality")
    test = evidence.PairedTest(quality.margin if quality else 0.05, work.use_case.alpha, work.use_case.alpha)
    test.add(ours, theirs)
    compared = {
        "teacher.n": float(ours.size),
        "teacher.agreement": float((both["answer"] == both["answer_teacher"]).mean()),
        "teacher.quality": float(theirs.mean()),
        "teacher.difference": test.estimate,
        "teacher.difference.lower": test.lower,
        "teacher.difference.upper": test.upper,
    }
    run_record.log_figures(work.client, run_id, compared)
    console.show_teacher(best.stage, compared)


def _answered_by_both(work: Workspace, run_id: str, teacher_run_id: str) -> pd.DataFrame:
    """The gate rows, in their order, of units that both answered whole, with the answer and score of each."""
    ours, theirs = (run_record.read_examples(work.client, run) for run in (run_id, teacher_run_id))
    answers = ours.merge(theirs, on="id", suffixes=("", "_teacher"))
    rows = work.gate_rows("gate")[0].merge(
        answers[["id", "answer", "score", "answer_teacher", "score_teacher"]], on="id", how="left"
    )
    lost = rows["score"].isna() | rows["score_teacher"].isna()
    return rows.iloc[whole_units(rows, lost.tolist())]
