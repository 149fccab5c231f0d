"""Says whether a table is fit for use, by a Great Expectations suite, and why not.

It repairs nothing: failing rows are copied to a quarantine file with the reason, the table stays as it is. Suites (see
`leastwise.rows.suites`) expect the columns `id`, `text`, `label` (rename first) and what `leastwise.rows.data_quality`
adds. An expectation of severity `warning` is told and stops nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows import data_quality, suites
from leastwise.stores.tables.table_values import MAX_NAMED_ROWS

if TYPE_CHECKING:
    import pandas as pd

MAX_SHOWN_IDS = 20
SAID = {
    "control_characters": "has control characters:",
    "exact_duplicate_of": "says the same as",
    "near_duplicate_of": "is nearly",
    "leaks_from": "is in",
    "other_language": "seems to be in",
    "personal": "holds",
    "secret": "holds",
}
DERIVED = frozenset(SAID)
COLUMN_EXISTS = "column_to_exist"
BALANCE = ("rows_of_label", "times_rarest_label")  # how many rows a row's class has, and how many times the rarest's


@dataclass(frozen=True)
class Failure:
    """An expectation that was not met."""

    expectation: str
    column: str  # empty where the whole table is meant
    message: str
    unexpected_ids: tuple[str, ...]  # at most MAX_SHOWN_IDS
    failing_ids: tuple[str, ...] = ()  # all of them
    is_warning: bool = False


@dataclass(frozen=True)
class Validation:
    """What a suite says of a table; `success` where no failure is critical."""

    suite: str
    source: str
    success: bool
    rows: int
    expectations: int
    failures: tuple[Failure, ...]
    warnings: tuple[Failure, ...] = ()


def validate(
    table: pd.DataFrame,
    suite: str,
    source: str = "",
    language: str | None = None,
    against: Mapping[str, pd.DataFrame] | None = None,
    **parameters: object,
) -> Validation:
    """Runs `expectations/{suite}.json` on the table; about 3 s for the first import, then 2-4 s per 10,000 rows.

    `language` and `against` as in `leastwise.rows.data_quality.profiled`. `parameters` override the suite's defaults
    (`min_rows`, `min_per_class`, `max_imbalance`, `max_characters`) and give what it requires (`labels`). An unknown
    suite, an unknown or a missing parameter raises `BadInput`. `source` names the table.
    """
    definition = suites.suite_of(suite)
    values = definition.filled(parameters)
    checked = data_quality.profiled(table, language, against)
    if "label" in checked:
        checked["rows_of_label"] = checked.groupby("label")["label"].transform("size")
        checked["times_rarest_label"] = checked["rows_of_label"] / checked["rows_of_label"].min()
    outcomes = suites.run(checked, definition, values)
    failures = _caused(_failure(outcome, table) for outcome in outcomes if not outcome.success)
    critical = tuple(failure for failure in failures if not failure.is_warning)
    warnings = tuple(failure for failure in failures if failure.is_warning)
    return Validation(
        suite, source or "table", not critical, len(table), len(definition.expectations), critical, warnings
    )


def require_valid(validation: Validation, more: str = "") -> None:
    """Raises `BadInput` naming the source, each failing column and its rows, and the remedy; `more` ends it."""
    if validation.success:
        return
    reasons = "; ".join(
        f"{failure.column or 'table'}: {failure.message}"
        + (f" (ids {', '.join(failure.unexpected_ids[:MAX_NAMED_ROWS])})" if failure.unexpected_ids else "")
        for failure in validation.failures
    )
    raise BadInput(
        f"{validation.source}: {validation.rows} rows do not meet suite {validation.suite!r}: {reasons}. "
        f"Correct or drop these rows, or change expectations/{validation.suite}.json if it asks too much.{more}"
    )


def quarantine(table: pd.DataFrame, validation: Validation, out: Path) -> int:
    """Copy the rows that fail to `out` (Parquet) with the column `reason`, and count them. The table is not changed."""
    reasons: dict[str, list[str]] = {}
    for failure in validation.failures:
        for row_id in failure.failing_ids:
            reasons.setdefault(row_id, []).append(f"{failure.column}: {failure.expectation}")
    failing = table[table["id"].astype(str).isin(reasons)] if "id" in table else table.head(0)
    if len(failing):
        out.parent.mkdir(parents=True, exist_ok=True)
        failing.assign(reason=["; ".join(reasons[str(row_id)]) for row_id in failing["id"]]).to_parquet(
            out, index=False
        )
    return len(failing)


def as_markdown(validation: Validation) -> str:
    """A heading with the verdict and a table of the failures, for MLflow and a Prefect artifact."""
    verdict = "PASS" if validation.success else "FAIL"
    lines = [
        f"### {verdict}: {validation.source} against suite `{validation.suite}`",
        f"{validation.rows} rows, {validation.expectations} expectations, {len(validation.failures)} failed, "
        f"{len(validation.warnings)} warned.",
    ]
    every = (*validation.failures, *validation.warnings)
    if every:
        lines += ["", "| | expectation | column | what | ids |", "|---|---|---|---|---|"]
    for failure in every:
        mark = "warning" if failure.is_warning else "FAIL"
        cells = (mark, failure.expectation, failure.column, failure.message, ", ".join(failure.unexpected_ids))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _caused(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The failures without those that only follow from a column that is missing."""
    every = tuple(failures)
    absent = {failure.column for failure in every if failure.expectation == COLUMN_EXISTS}
    if "label" in absent:
        absent |= set(BALANCE)
    if absent & {"id", "text"}:
        absent |= DERIVED
    return tuple(each for each in every if each.expectation == COLUMN_EXISTS or each.column not in absent)


def _failure(outcome: suites.Outcome, table: pd.DataFrame) -> Failure:
    config, ids = outcome.expectation_config, outcome.failing_ids
    kind = config.type.removeprefix("expect_").removeprefix("column_values_to_")
    column = config.column
    if kind == COLUMN_EXISTS:
        return Failure(kind, column, f"column missing, the table has {', '.join(map(str, table.columns))}", ())
    message = _message(outcome)
    if column in SAID:
        values = outcome.result.unexpected_list or []
        shown = "; ".join(
            f"{row_id} {SAID[column]} {value}"
            for row_id, value in list(zip(ids, values, strict=False))[:MAX_NAMED_ROWS]
        )
        count = outcome.result.unexpected_count
        message = f"{len(ids) if count is None else count} rows: {shown}"
    if column in BALANCE and {"id", "label"} <= set(table):
        message = _imbalance(table, ids)
        ids = ids if column == "rows_of_label" else []  # a class out of balance is no fault of its rows
    every = tuple(dict.fromkeys(ids))
    return Failure(kind, column, message, every[:MAX_SHOWN_IDS], every, config.severity == "warning")


def _imbalance(table: pd.DataFrame, ids: list[str]) -> str:
    """The classes of these rows, with how many rows each has, beside the rarest."""
    sizes = table["label"].value_counts()
    meant = sizes[sizes.index.isin(table["label"][table["id"].astype(str).isin(ids)])]
    shown = ", ".join(f"{label} {size}" for label, size in meant.items())
    return f"rows of class {shown}; of the rarest, {sizes.index[-1]}, {sizes.iloc[-1]}"


def _message(outcome: suites.Outcome) -> str:
    config, finding = outcome.expectation_config, outcome.result
    of_the_run = ("column", "batch_id")
    limits = {name: value for name, value in config.arguments.items() if name not in of_the_run and value is not None}
    expectation = config.type.removeprefix("expect_").replace("_", " ")
    expectation += f" {json.dumps(limits, default=str)}" if limits else ""
    if "unexpected_count" in finding.model_fields_set:
        return f"{finding.unexpected_count} rows fail: {expectation}"
    if "observed_value" in finding.model_fields_set:
        return f"found {finding.observed_value}, but {expectation}"
    return f"could not be checked ({outcome.exception_message}): {expectation}"
