"""The gate on data: every table a stage relies on is held to its suite before that stage starts; what fails is kept
aside.

What a suite asks is data (`expectations/`); how rows are looked at is in `leastwise.rows.data_quality`. A table that
passed once under the same suite is not looked at again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.models.encoder import embed
from leastwise.models.machine import THREADS
from leastwise.record.run import FAILED
from leastwise.rows import data_quality, validation
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.shipped import EXPECTATIONS
from leastwise.stores.tables import table_files, table_times
from tasks.session.artifacts import publish_markdown
from tasks.session.workspace import open_workspace

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("leastwise.tasks.data")

JUDGED = ("gate", "dev", "test")
MUST_NOT_SHARE = {
    "dev": ("train",),
    "gate": ("train", "dev"),
    "test": ("train", "dev", "gate"),
    "unlabelled": ("gate", "test"),
    "traffic": ("train",),
}
SHOWN_SUSPECTS = 20

Parameters = dict[str, object]


@task(name="validate data")
def validate_judged(climb: RunId) -> None:
    """The rows verdicts are taken from: gate, dev and test, with leakage between the splits. BadInput names the
    quarantine.
    """
    work = open_workspace(climb)
    for name in JUDGED:
        _hold(work, name)


@task(name="validate training data")
def validate_training_data(climb: RunId) -> None:
    """The examples a model is trained on, and the labels its neighbours disagree with. BadInput names the
    quarantine.
    """
    work = open_workspace(climb)
    _hold(work, "train")
    _list_suspects(work)


@task(name="validate documents")
def validate_documents(climb: RunId) -> None:
    """The corpus continued pre-training reads."""
    _hold(open_workspace(climb), "documents")


@task(name="validate unlabelled text")
def validate_unlabelled(climb: RunId) -> None:
    """The text a teacher labels."""
    _hold(open_workspace(climb), "unlabelled")


@task(name="validate traffic")
def validate_traffic(climb: RunId) -> None:
    """The sampled traffic caching is judged on."""
    _hold(open_workspace(climb), "traffic")


@task(name="validate teacher labels")
def validate_teacher_labels(climb: RunId, labels_uri: str) -> None:
    """What a student is trained on."""
    work, table = open_workspace(climb), table_files.read_table(labels_uri)
    suite, parameters = "pairs", Parameters({"min_rows": 1, "advised_rows": 1})
    if work.use_case.task.answers is not None:
        suite, parameters = "teacher", {"labels": _labels(work)}
    _validate(work, Held("teacher labels", table, storage.sha256(labels_uri), suite, parameters))


@dataclass(frozen=True)
class Held:
    """A table and the suite it is held to; `content` names its rows, `against` are the splits it must not share rows
    with.
    """

    name: str
    table: pd.DataFrame
    content: str
    suite: str
    parameters: Parameters
    against: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Its name as a part of a file's."""
        return self.name.replace(" ", "_")


def _hold(work: Workspace, name: str) -> None:
    table = work.tables.get(name)
    if table is None:
        return
    suite = _suite_of(work, name, table)
    parameters: Parameters = {"labels": _labels(work)} if suite in ("examples", "gate") else {}
    if suite == "examples":  # a way to decline need not have examples
        decline = work.use_case.task.decline_label
        parameters["taught_labels"] = [each for each in _labels(work) if each != decline]
    against = {other: rows for other in MUST_NOT_SHARE.get(name, ()) if (rows := work.tables.get(other)) is not None}
    hashes = [work.tables.hashes[each] for each in (name, *against)]
    _validate(work, Held(name, table, content_key(*hashes), suite, parameters, against))


def _suite_of(work: Workspace, name: str, table: pd.DataFrame) -> str:
    is_enumerated = work.use_case.task.answers is not None
    has_labels = "label" in table and table["label"].notna().all()
    if name in JUDGED:
        return "gate" if is_enumerated and has_labels else "judged"
    return {"train": "examples" if is_enumerated else "pairs"}.get(name, name)


def _labels(work: Workspace) -> list[str]:
    return list(work.use_case.task.answers or ())


def _validate(work: Workspace, held: Held) -> None:
    """Hold one table to one suite, show and log what it says, and keep failing rows aside."""
    data = work.use_case.data
    rules = ((EXPECTATIONS / f"{held.suite}.json").read_text(), json.dumps(held.parameters), data.model_dump_json())
    passed = work.home / "validated" / f"{content_key(held.suite, held.content, *rules)}.md"
    if passed.exists():
        _show(work, held, passed.read_text())
        return
    source = f"data.{held.name}" if held.name in work.tables.hashes else held.name
    checked = validation.validate(
        held.table, held.suite, source, data.language, held.against or None, **held.parameters
    )
    note = validation.as_markdown(checked) + _coverage(held.table, data.date_column)
    _show(work, held, note)
    for warning in checked.warnings:
        log.info(f"{source}: {_in_words(warning)} (validation/{held.file_name}.md)")
    if checked.success:
        storage.write_bytes(passed, note.encode())
        return
    _quarantine(work, held, checked)


def _in_words(warning: validation.Failure) -> str:
    if warning.column in validation.BALANCE:
        return warning.message
    rows = f"{len(warning.failing_ids)} rows" if warning.failing_ids else "the table"
    return f"{warning.column or warning.expectation} in {rows}"


def _quarantine(work: Workspace, held: Held, checked: validation.Validation) -> None:
    out = work.home / "quarantine" / work.use_case.name / f"{held.file_name}-{held.content[:8]}.parquet"
    kept = validation.quarantine(held.table, checked, out)
    work.run.close(FAILED)
    aside = f" {kept} failing rows are in {out} with their reasons; the table itself was not changed." if kept else ""
    validation.require_valid(checked, aside)


def _show(work: Workspace, held: Held, note: str) -> None:
    """What a suite said of a table, in MLflow and as a Prefect artifact."""
    work.run.log_text(note, f"validation/{held.file_name}.md")
    publish_markdown(f"data-{held.name.replace(' ', '-')}", note)


def _coverage(table: pd.DataFrame, column: str | None) -> str:
    """From when to when the rows are, and which months between have none."""
    import pandas as pd

    if column is None or column not in table:
        return ""
    seconds = table_times.unix_seconds(table, column, "rows")
    months = pd.to_datetime(seconds, unit="s").dt.to_period("M")
    empty = pd.period_range(months.min(), months.max(), freq="M").difference(pd.PeriodIndex(months.unique()))
    without = f", no rows in {', '.join(map(str, empty[:12]))}" if len(empty) else ", rows in every month"
    return f"\n\nDates ({column}): {months.min()} to {months.max()}{without}.\n"


def _list_suspects(work: Workspace) -> None:
    """Training labels that nearest neighbours disagree with, for a person to look at; nothing is dropped."""
    train, encoder = work.tables.get("train"), work.catalogue.encoder
    if encoder is None or train is None or work.use_case.task.answers is None:
        return
    vectors = embed(list(train["text"]), encoder, cache=work.catalogue.embeddings, threads=THREADS)
    suspects = data_quality.suspected_labels(list(train["id"]), list(train["label"]), vectors)
    if not suspects:
        return
    texts = dict(zip(train["id"].astype(str), train["text"], strict=True))
    rows = "\n".join(
        f"| {row_id} | {texts[row_id][:120].replace('|', ' ')} | {label} | {theirs} | {share:.0%} |"
        for row_id, label, theirs, share in suspects
    )
    note = (
        "Labels to look at: most nearest neighbours carry another one. Nothing was dropped.\n\n"
        f"| id | text | label | neighbours say | share |\n|---|---|---|---|---|\n{rows}\n"
    )
    work.run.log_text(note, "validation/suspected_labels.md")
    publish_markdown("suspected-labels", note)
    first = ", ".join(row_id for row_id, *_ in suspects[:SHOWN_SUSPECTS])
    log.info(f"{len(suspects)} training labels to look at (validation/suspected_labels.md): {first}"[:300])
