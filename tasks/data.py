"""The gate on data: every table a stage relies on is held to its suite before that stage starts; what fails is kept
aside.

How a table is held to its suite is in `tasks.session.held`. What stages further up rely on is asked before a climb is
opened too (`tasks.session.checks`), so that nothing is paid for below a table that will stop the climb.
"""

from __future__ import annotations

import logging

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.models.encoder import embed
from leastwise.models.machine import THREADS
from leastwise.record.run import FAILED
from leastwise.rows import data_quality
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from tasks.session.artifacts import publish_markdown
from tasks.session.held import JUDGED, Held, Parameters, held_of, held_to_suite
from tasks.session.workspace import open_workspace

log = logging.getLogger("leastwise.tasks.data")

SHOWN_SUSPECTS = 20


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
    work = open_workspace(climb)
    labels = work.local(labels_uri)
    table = table_files.read_table(labels)
    suite, parameters = "pairs", Parameters({"min_rows": 1, "advised_rows": 1})
    if work.use_case.task.answers is not None:
        suite, parameters = "teacher", {"labels": list(work.use_case.task.answers)}
    _validate(work, Held("teacher labels", "teacher labels", table, storage.sha256(labels), suite, parameters))


def _hold(work: Workspace, name: str) -> None:
    held = held_of(work.question, name)
    if held is not None:
        _validate(work, held)


def _validate(work: Workspace, held: Held) -> None:
    """Hold one table to one suite, show and log what it says, and keep failing rows aside."""
    finding = held_to_suite(held, work.use_case, work.home)
    _show(work, held, finding.note)
    if finding.problem:
        work.run.close(FAILED)
        raise BadInput(finding.problem)


def _show(work: Workspace, held: Held, note: str) -> None:
    """What a suite said of a table, in MLflow and as a Prefect artifact."""
    work.run.log_text(note, f"validation/{held.file_name}.md")
    publish_markdown(f"data-{held.name.replace(' ', '-')}", note)


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
