"""A table held to its suite (`expectations/`), whether a run is open or not: what it says, and where failing rows lie.

What a suite asks is data; how rows are looked at is in `leastwise.rows.data_quality`. It logs to no run (`tasks.data`
does). A table that passed once under the same suite is not looked at again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.content import content_key
from leastwise.errors import BadInput, problems_of, refuse
from leastwise.rows import validation
from leastwise.rows.question import Question
from leastwise.rows.reading.request_log import is_log
from leastwise.rows.tables import KINDS, TABLES
from leastwise.stores import storage
from leastwise.stores.shipped import EXPECTATIONS
from leastwise.stores.tables import table_times
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("leastwise.tasks.held")

JUDGED = ("gate", "dev", "test")
MUST_NOT_SHARE = {
    "dev": ("train",),
    "gate": ("train", "dev"),
    "test": ("train", "dev", "gate"),
    "unlabelled": ("gate", "test"),
    "traffic": ("train",),
}
MOST_HELD_BEFORE = 200_000  # rows; a longer table is held when its stage comes, for that takes minutes

Parameters = dict[str, object]


@dataclass(frozen=True)
class Held:
    """A table and the suite it is held to; `content` names its rows, `against` are the splits it must not share rows
    with.
    """

    name: str
    source: str
    table: pd.DataFrame
    content: str
    suite: str
    parameters: Parameters
    against: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Its name as a part of a file's."""
        return self.name.replace(" ", "_")


@dataclass(frozen=True)
class Finding:
    """What a suite says of a table: a note for people, and what must be put right, empty if nothing."""

    note: str
    problem: str = ""


def check_held(question: Question, names: Mapping[str, str], home: Path) -> None:
    """BadInput for all that the suites of these tables refuse, each with what else would help, and with the failing
    rows kept aside; long tables are left to their stage.
    """
    refuse(problems_of(partial(_check, question, name, home, more) for name, more in names.items()))


def _check(question: Question, name: str, home: Path, more: str) -> None:
    if question.tables.rows(name) > MOST_HELD_BEFORE:
        return
    held = held_of(question, name)
    finding = held_to_suite(held, question.use_case, home) if held else None
    if finding and finding.problem:
        raise BadInput(finding.problem + more)


def held_of(question: Question, name: str) -> Held | None:
    """A table of the use case with its suite; None where there is no such table."""
    tables, task = question.tables, question.use_case.task
    table = tables.get(name)
    if table is None:
        return None
    suite, labels = _suite_of(question, name, table), list(task.answers or ())
    parameters: Parameters = {"labels": labels} if suite in ("examples", "gate") else {}
    if suite == "examples":  # a way to decline need not have examples
        parameters["taught_labels"] = [each for each in labels if each != task.decline_label]
    against = {other: rows for other in MUST_NOT_SHARE.get(name, ()) if (rows := tables.get(other)) is not None}
    drawn_from = tables.hashes if name in KINDS else (name, *against)  # their rows may be made of any table's
    content = content_key(*(tables.hashes[each] for each in drawn_from))
    return Held(name, f"data.{name}", table, content, suite, parameters, against)


def _suite_of(question: Question, name: str, table: pd.DataFrame) -> str:
    is_enumerated = question.use_case.task.answers is not None
    has_labels = "label" in table and table["label"].notna().all()
    if name in JUDGED:
        return "gate" if is_enumerated and has_labels else "judged"
    if name == "traffic" and is_log(table.columns):
        return "requests"
    return {"train": "examples" if is_enumerated else "pairs"}.get(name, name)


def held_to_suite(held: Held, use_case: UseCase, home: Path) -> Finding:
    """Hold a table to its suite; failing rows are copied to the quarantine below `home`, which the problem names."""
    data = use_case.data
    rules = (EXPECTATIONS / f"{held.suite}.json").read_text(), json.dumps(held.parameters)
    reading = data.model_dump_json(exclude=set(TABLES))  # the files are named by their content, wherever they lie
    passed = home / "validated" / f"{content_key(held.suite, held.source, held.content, *rules, reading)}.md"
    if passed.exists():
        return Finding(passed.read_text())
    checked = validation.validate(
        held.table, held.suite, held.source, data.language, held.against or None, **held.parameters
    )
    note = validation.as_markdown(checked) + _coverage(held, data.date_column)
    for warning in checked.warnings:
        log.info(f"{held.source}: {_in_words(warning)} (validation/{held.file_name}.md)")
    if checked.success:
        storage.write_bytes(passed, note.encode())
        return Finding(note)
    out = home / "quarantine" / use_case.name / f"{held.file_name}-{held.content[:8]}.parquet"
    kept = validation.quarantine(held.table, checked, out)
    aside = f" {kept} failing rows are in {out} with their reasons; the table itself was not changed." if kept else ""
    return Finding(note, problems_of([partial(validation.require_valid, checked, aside)])[0])


def _in_words(warning: validation.Failure) -> str:
    if warning.column in validation.BALANCE:
        return warning.message
    rows = f"{len(warning.failing_ids)} rows" if warning.failing_ids else "the table"
    return f"{warning.column or warning.expectation} in {rows}"


def _coverage(held: Held, column: str | None) -> str:
    """From when to when the rows are, and which months between have none."""
    import pandas as pd

    if column is None or column not in held.table:
        return ""
    seconds = table_times.unix_seconds(held.table, column, held.source)
    months = pd.to_datetime(seconds, unit="s").dt.to_period("M")
    empty = pd.period_range(months.min(), months.max(), freq="M").difference(pd.PeriodIndex(months.unique()))
    without = f", no rows in {', '.join(map(str, empty[:12]))}" if len(empty) else ", rows in every month"
    return f"\n\nDates ({column}): {months.min()} to {months.max()}{without}.\n"
