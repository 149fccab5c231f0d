"""What people said of answers as two tables: grades (`data.graded`) and corrected labels, with who and when.

It asks nobody and reads no server. Only grades of the sample become rows: a judge's error on answers that were picked
for being wrong is not its error. Where several people said something of one example, the grade is their mean, and a
label counts only where they agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from leastwise.errors import BadInput
from leastwise.metrics.exact_label import normalize
from leastwise.record.review.queue import Said
from leastwise.rows.expected_answers import expected_texts
from leastwise.stores import storage
from leastwise.use_case import UseCase
from leastwise.use_case.task import Task

GRADED, LABELS = "graded.jsonl", "labels.jsonl"

Row = Mapping[str, object]


@dataclass(frozen=True)
class Written:
    """How many rows stand in either table, and why others do not. `of_the_gate`: corrected labels of gate rows."""

    graded_file: Path
    labels_file: Path
    graded: int
    labels: int
    of_the_gate: int
    left_out: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The tables that have rows."""
        both = ((self.graded_file, self.graded), (self.labels_file, self.labels))
        return tuple(file for file, rows in both if rows)


def write_tables(use_case: UseCase, said: Sequence[Said], folder: Path) -> Written:
    """Both tables, over those of before. A table without rows is not there: what was taken back must not stay."""
    by_row: dict[tuple[str, str], list[Said]] = {}
    for one in said:
        by_row.setdefault((one.set, one.row_id), []).append(one)
    graded = [row for each in by_row.values() if (row := _graded(use_case, each))]
    left_out, labels, of_the_gate = list[str](), list[Row](), 0
    for each in by_row.values():
        corrections = [one for one in each if one.corrected]
        right = {_label(use_case.task, one.corrected) for one in corrections}
        if len(right) == 1 and (label := next(iter(right))) is not None:
            labels.append(_labelled(use_case, corrections, label))
            of_the_gate += corrections[0].set == "gate"
        elif right:
            why = "people disagree" if len(right) > 1 else f"{corrections[0].corrected[:60]!r} is not in the format"
            left_out.append(f"the label of {corrections[0].row_id} was left out: {why}")
    written = Written(folder / GRADED, folder / LABELS, len(graded), len(labels), of_the_gate, tuple(left_out))
    for file, rows in ((written.graded_file, graded), (written.labels_file, labels)):
        if rows:
            storage.write_bytes(file, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())
        else:
            file.unlink(missing_ok=True)
    return written


def _graded(use_case: UseCase, said: Sequence[Said]) -> Row | None:
    grades = [(each, each.grade) for each in said if each.grade is not None and each.sampled]
    if not grades:
        return None
    column, first = use_case.data.columns_of("graded"), said[0]
    expected = {column["label"]: first.expected} if first.expected is not None else {}
    asked = {column["id"]: first.row_id, column["text"]: first.text, "answer": first.answer}
    return {**_by_whom(each for each, _ in grades), **asked, "grade": fmean(grade for _, grade in grades), **expected}


def _labelled(use_case: UseCase, said: Sequence[Said], label: str) -> Row:
    column, first = use_case.data.columns_of(said[0].set), said[0]
    asked = {column["id"]: first.row_id, column["text"]: first.text, column["label"]: label}
    return {"was": first.expected, "set": first.set, **_by_whom(said), **asked}


def _by_whom(said: Iterable[Said]) -> Row:
    every = list(said)
    return {
        "who": ", ".join(dict.fromkeys(each.who for each in every)),
        "when": max(each.when for each in every),
        "why": "; ".join(each.why for each in every if each.why),
    }


def _label(task: Task, given: str) -> str | None:
    """The expected answer as tables hold it; None where the task allows no such one."""
    if task.kind == "classification":
        return normalize(task, given)
    try:
        return expected_texts(task, [given], "review")[0]
    except BadInput:
        return None
