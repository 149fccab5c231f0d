"""The gate on data: every table a stage relies on is held to its suite before that stage starts, and what fails is kept aside.

What a suite asks is data (`expectations/`); how rows are looked at is in `leastwise.rows.data_quality`. A table that passed once under the
same suite is not looked at again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.models.encoder import embed
from leastwise.models.threads import THREADS
from leastwise.rows import data_quality, row_checks, validation
from leastwise.stores import storage, table_files
from leastwise.stores.shipped import EXPECTATIONS
from tasks import console

if TYPE_CHECKING:
    import pandas as pd

JUDGED = ("gate", "dev", "test")
MUST_NOT_SHARE = {"dev": ("train",), "gate": ("train", "dev"), "test": ("train", "dev", "gate")}
SHOWN_SUSPECTS = 20


@task(name="validate data")
def validate_judged(climb_id: str) -> None:
    """The rows verdicts are taken from: gate, dev and test, with leakage between the splits. BadInput names the quarantine."""
    for name in JUDGED:
        _hold(Workspace.of(climb_id), climb_id, name)


@task(name="validate training data")
def validate_training_data(climb_id: str) -> None:
    """The examples a model is trained on, and the labels its neighbours disagree with. BadInput names the quarantine."""
    work = Workspace.of(climb_id)
    _hold(work, climb_id, "train")
    _list_suspects(work, climb_id)


@task(name="validate documents")
def validate_documents(climb_id: str) -> None:
    """The corpus continued pre-training reads."""
    _hold(Workspace.of(climb_id), climb_id, "documents")


@task(name="validate unlabelled text")
def validate_unlabelled(climb_id: str) -> None:
    """The text a teacher labels."""
    _hold(Workspace.of(climb_id), climb_id, "unlabelled")


@task(name="validate traffic")
def validate_traffic(climb_id: str) -> None:
    """The sampled traffic caching is judged on."""
    _hold(Workspace.of(climb_id), climb_id, "traffic")


@task(name="validate teacher labels")
def validate_teacher_labels(climb_id: str, labels_uri: str) -> None:
    """What a student is trained on."""
    work = Workspace.of(climb_id)
    table = table_files.read_table(labels_uri)
    is_listed = work.use_case.task.answers is not None
    suite, parameters = ("teacher", _labels(work)) if is_listed else ("pairs", {"min_rows": 1, "advised_rows": 1})
    _validate(work, climb_id, "teacher labels", table, storage.sha256(labels_uri), suite, parameters)


def _hold(work: Workspace, climb_id: str, name: str) -> None:
    table = work.tables.get(name)
    if table is None:
        return
    is_enumerated = work.use_case.task.answers is not None
    has_labels = "label" in table and table["label"].notna().all()
    suite = {"train": "examples" if is_enumerated else "pairs"}.get(name, name)
    if name in JUDGED:
        suite = "gate" if is_enumerated and has_labels else "judged"
    parameters = _labels(work) if suite in ("examples", "gate") else {}
    if suite == "examples":  # a way to decline need not have examples
        parameters["taught_labels"] = [
            each for each in parameters["labels"] if each != work.use_case.task.decline_label
        ]
    against = {other: rows for other in MUST_NOT_SHARE.get(name, ()) if (rows := work.tables.get(other)) is not None}
    hashes = [work.tables.hashes[each] for each in (name, *against)]
    _validate(work, climb_id, name, table, content_key(*hashes), suite, parameters, against)


def _labels(work: Workspace) -> dict[str, Any]:
    return {"labels": list(work.use_case.task.answers or ())}


def _validate(
    work: Workspace,
    climb_id: str,
    name: str,
    table: pd.DataFrame,
    content: str,
    suite: str,
    parameters: dict[str, Any],
    against: dict[str, pd.DataFrame] | None = None,
) -> None:
    """Hold one table to one suite, show and log what it says, and keep failing rows aside."""
    data = work.use_case.data
    asked = (
        suite,
        content,
        (EXPECTATIONS / f"{suite}.json").read_text(),
        json.dumps(parameters),
        data.model_dump_json(),
    )
    passed = work.home / "validated" / f"{content_key(*asked)}.md"
    if passed.exists():
        _show(work, climb_id, name, passed.read_text())
        return
    source = f"data.{name}" if name in work.tables.hashes else name
    checked = validation.validate(table, suite, source, data.language, against, **parameters)
    note = validation.as_markdown(checked) + _coverage(table, data.date_column)
    _show(work, climb_id, name, note)
    for warning in checked.warnings:
        many = f"{len(warning.failing_ids)} rows" if warning.failing_ids else "the table"
        told = (
            warning.message
            if warning.column in validation.BALANCE
            else f"{warning.column or warning.expectation} in {many}"
        )
        console.show_note(f"{source}: {told} (validation/{name.replace(' ', '_')}.md)")
    if checked.success:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.write_text(note)
        return
    out = work.home / "quarantine" / work.use_case.name / f"{name.replace(' ', '_')}-{content[:8]}.parquet"
    kept = validation.quarantine(table, checked, out)
    work.client.set_terminated(climb_id, "FAILED")
    aside = f" {kept} failing rows are in {out} with their reasons; the table itself was not changed." if kept else ""
    validation.require_valid(checked, aside)


def _show(work: Workspace, climb_id: str, name: str, note: str) -> None:
    """What a suite said of a table, in MLflow and as a Prefect artifact."""
    work.client.log_text(climb_id, note, f"validation/{name.replace(' ', '_')}.md")
    console.publish_markdown(f"data-{name.replace(' ', '-')}", note)


def _coverage(table: pd.DataFrame, column: str | None) -> str:
    """From when to when the rows are, and which months between have none."""
    import pandas as pd

    if column is None or column not in table:
        return ""
    seconds = row_checks.unix_seconds(table, column, "rows")
    months = pd.to_datetime(seconds, unit="s").dt.to_period("M")
    empty = pd.period_range(months.min(), months.max(), freq="M").difference(pd.PeriodIndex(months.unique()))
    without = f", no rows in {', '.join(map(str, empty[:12]))}" if len(empty) else ", rows in every month"
    return f"\n\nDates ({column}): {months.min()} to {months.max()}{without}.\n"


def _list_suspects(work: Workspace, climb_id: str) -> None:
    """Training labels that nearest neighbours disagree with, for a person to look at; nothing is dropped."""
    train = work.tables.get("train")
    if work.encoder is None or train is None or work.use_case.task.answers is None:
        return
    vectors = embed(list(train["text"]), work.encoder, cache=work.home / "embeddings", threads=THREADS)
    found = data_quality.suspected_labels(list(train["id"]), list(train["label"]), vectors)
    if not found:
        return
    texts = dict(zip(train["id"].astype(str), train["text"], strict=True))
    rows = "\n".join(
        f"| {row_id} | {texts[row_id][:120].replace('|', ' ')} | {label} | {theirs} | {share:.0%} |"
        for row_id, label, theirs, share in found
    )
    note = f"Labels to look at: most nearest neighbours carry another one. Nothing was dropped.\n\n| id | text | label | neighbours say | share |\n|---|---|---|---|---|\n{rows}\n"
    work.client.log_text(climb_id, note, "validation/suspected_labels.md")
    console.publish_markdown("suspected-labels", note)
    shown = ", ".join(row_id for row_id, *_ in found[:SHOWN_SUSPECTS])
    console.show_note(f"{len(found)} training labels to look at (validation/suspected_labels.md): {shown}"[:300])
