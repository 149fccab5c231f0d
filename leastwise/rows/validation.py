"""Says whether a table is fit for use: plain row checks before anything is spent, Great Expectations suites as data.

It repairs nothing: failing rows are copied to a quarantine file with the reason, the table stays as it is. Suites live in
`expectations/NAME.json` and expect the columns `id`, `text`, `label` (rename first) and what `leastwise.rows.data_quality` adds. An
expectation of severity `warning` is told and stops nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.errors import BadInput
from leastwise.rows import data_quality

if TYPE_CHECKING:
    import pandas as pd

EXPECTATIONS = Path(__file__).resolve().parent.parent / "expectations"
MAX_SHOWN_IDS = 20
MAX_NAMED_ROWS = 5
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
BALANCE = ("rows_of_label", "times_rarest_label")  # how many rows a row's class has, and how many times the rarest's


@dataclass(frozen=True)
class Failure:
    expectation: str
    column: str  # empty where the whole table is meant
    message: str
    unexpected_ids: tuple[str, ...]  # at most MAX_SHOWN_IDS
    failing_ids: tuple[str, ...] = ()  # all of them
    is_warning: bool = False


@dataclass(frozen=True)
class Validation:
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
    **parameters: Any,
) -> Validation:
    """Runs `expectations/{suite}.json` on the table; about 3 s for the first import, then 2-4 s per 10,000 rows.

    `language` and `against` as in `leastwise.rows.data_quality.profiled`. `parameters` override the suite's defaults (`min_rows`,
    `min_per_class`, `max_imbalance`, `max_characters`) and give what it requires (`labels`). An unknown suite, an unknown
    or a missing parameter raises `BadInput`. `source` names the table.
    """
    definition = _definition(suite)
    values = _values(definition, parameters)
    checked = data_quality.profiled(table, language, against)
    if "label" in checked:
        checked["rows_of_label"] = checked.groupby("label")["label"].transform("size")
        checked["times_rarest_label"] = checked["rows_of_label"] / checked["rows_of_label"].min()
    results = _run(checked, suite, definition["expectations"], values)
    failures = tuple(_failure(result, table) for result in results if not result["success"])
    absent = {failure.column for failure in failures if failure.expectation == "column_to_exist"}
    if "label" in absent:
        absent |= set(BALANCE)
    if absent & {"id", "text"}:
        absent |= DERIVED
    told = tuple(
        failure for failure in failures if failure.expectation == "column_to_exist" or failure.column not in absent
    )
    critical = tuple(failure for failure in told if not failure.is_warning)
    warnings = tuple(failure for failure in told if failure.is_warning)
    return Validation(
        suite, source or "table", not critical, len(table), len(definition["expectations"]), critical, warnings
    )


def require_valid(validation: Validation, more: str = "") -> None:
    """Raises `BadInput` naming the source, each failing column and its rows, and the remedy; `more` ends the message."""
    if validation.success:
        return
    told = "; ".join(
        f"{failure.column or 'table'}: {failure.message}"
        + (f" (ids {', '.join(failure.unexpected_ids[:MAX_NAMED_ROWS])})" if failure.unexpected_ids else "")
        for failure in validation.failures
    )
    raise BadInput(
        f"{validation.source}: {validation.rows} rows do not meet suite {validation.suite!r}: {told}. "
        f"Correct or drop these rows, or change expectations/{validation.suite}.json if it asks too much.{more}"
    )


def quarantine(table: pd.DataFrame, validation: Validation, out: Path) -> int:
    """Copy the rows that fail to `out` (Parquet) with the column `reason`; gives back how many. The table is not changed."""
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
    told = (*validation.failures, *validation.warnings)
    if told:
        lines += ["", "| | expectation | column | what | ids |", "|---|---|---|---|---|"]
    for failure in told:
        mark = "warning" if failure.is_warning else "FAIL"
        cells = (mark, failure.expectation, failure.column, failure.message, ", ".join(failure.unexpected_ids))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def check_rows(
    df: pd.DataFrame,
    source: str,
    text: str = "text",
    label: str | None = "label",
    labels: Collection[str] | None = None,
    id: str | None = "id",
) -> None:
    """Raises `BadInput` for the first of: no rows, a missing column, missing or empty text or id, a label outside
    `labels`, duplicate ids. Rows count from 1, without any header. `None` leaves a column unchecked.
    """
    if df.empty:
        raise BadInput(f"{source}: no rows. Add data, or point the use case at another file.")
    for column in (text, label, id):
        if column is not None and column not in df.columns:
            raise BadInput(
                f"{source}: no column {column!r} (it has {', '.join(map(str, df.columns))}). Add or rename it."
            )
    for column in (text, label, id):
        if column is not None:
            _check_filled(df[column], source, column)
    if label is not None and labels is not None:
        _check_labels(df[label], source, label, labels)
    if id is not None:
        _check_unique(df[id], source, id)


def check_grades(df: pd.DataFrame, source: str) -> None:
    """Raises `BadInput` where the columns `answer` and `grade` are missing, or a grade is no number in 0..1."""
    for column in ("answer", "grade"):
        if column not in df.columns:
            raise BadInput(
                f"{source}: no column {column!r} (it has {', '.join(map(str, df.columns))}). Add or rename it."
            )
    missing = df["answer"].isna()
    if missing.any():
        raise BadInput(
            f"{source}: {_rows(missing)}: missing (NaN) 'answer'. Give the answer that was graded, empty if it was."
        )
    outside = ~df["grade"].map(lambda grade: isinstance(grade, (int, float)) and 0 <= grade <= 1)
    if outside.any():
        found = df["grade"][outside].iloc[0]
        raise BadInput(
            f"{source}: {_rows(outside)}: 'grade' {found!r} is no number in 0..1. Scale the grades, 1 being best."
        )


def unix_seconds(df: pd.DataFrame, column: str, source: str) -> pd.Series[float]:
    """A column of dates or unix seconds as unix seconds; BadInput names the first row that is neither."""
    import pandas as pd

    if column not in df.columns:
        raise BadInput(
            f"{source}: no column {column!r}, which data.time_column names. Add it, or remove data.time_column."
        )
    if pd.api.types.is_numeric_dtype(df[column]):
        seconds = df[column].astype(float)
    else:
        dates = pd.to_datetime(df[column], errors="coerce", utc=True, format="ISO8601")
        seconds = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    unread = seconds.isna()
    if unread.any():
        raise BadInput(f"{source}: {_rows(unread)}: {column!r} is no time. Give an ISO date or unix seconds.")
    return seconds


def leakage(train: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """The texts of `other` that `train` has too, but for case, punctuation and spacing. Paraphrases are not found."""
    known = {data_quality.normalised(text) for text in train}
    return tuple(text for text in other if data_quality.normalised(text) in known)


def _check_filled(values: pd.Series[Any], source: str, column: str) -> None:
    missing = values.isna()
    if missing.any():
        raise BadInput(f"{source}: {_rows(missing)}: missing (NaN) {column!r}. Fill it in or drop the row.")
    empty = values.map(lambda value: not str(value).strip())
    if empty.any():
        raise BadInput(f"{source}: {_rows(empty)}: empty {column!r}. Fill it in or drop the row.")


def _check_labels(values: pd.Series[Any], source: str, column: str, labels: Collection[str]) -> None:
    outside = ~values.isin(list(labels))
    if outside.any():
        found = ", ".join(repr(value) for value in values[outside].unique()[:MAX_NAMED_ROWS])
        raise BadInput(
            f"{source}: {_rows(outside)}: {column!r} {found} is not in the label set ({', '.join(sorted(labels))}). "
            "Correct the row, or add the label to the use case."
        )


def _check_unique(values: pd.Series[Any], source: str, column: str) -> None:
    double = values.duplicated(keep=False)
    if double.any():
        found = ", ".join(repr(value) for value in values[double].unique()[:MAX_NAMED_ROWS])
        raise BadInput(f"{source}: {_rows(double)}: duplicate {column!r} {found}. Give every row its own, or drop one.")


def _rows(bad: pd.Series[bool]) -> str:
    numbers = [number for number, is_bad in enumerate(bad, start=1) if is_bad]
    more = f" and {len(numbers) - MAX_NAMED_ROWS} more" if len(numbers) > MAX_NAMED_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MAX_NAMED_ROWS]))}{more}"


def _definition(suite: str) -> dict[str, Any]:
    path = EXPECTATIONS / f"{suite}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in EXPECTATIONS.glob("*.json")))
        raise BadInput(f"{path}: no such suite. Use one of {known}, or add the file.")
    try:
        definition: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: not JSON ({error}). Correct it.") from error
    return definition


def _values(definition: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    defaults, required = definition["meta"]["defaults"], definition["meta"]["required"]
    unknown = sorted(set(parameters) - set(defaults) - set(required))
    absent = sorted(set(required) - set(parameters))
    if unknown or absent:
        raise BadInput(f"suite {definition['name']!r}: unknown parameters {unknown}, missing parameters {absent}.")
    values = {**defaults, **parameters}
    if "labels" in values:
        values["labels"] = sorted(values["labels"])
    return values


def _run(table: pd.DataFrame, name: str, expectations: list[Any], values: dict[str, Any]) -> list[dict[str, Any]]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    for name in (
        "great_expectations",
        "great_expectations.data_context.types.base",
    ):  # the second sets a level of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch(batch_parameters={"dataframe": table})
    result_format: dict[str, Any] = {"result_format": "COMPLETE"}
    if "id" in table:
        result_format["unexpected_index_column_names"] = ["id"]
    suite = gx.ExpectationSuite(name=name, expectations=expectations)
    outcome = batch.validate(suite, result_format=result_format, expectation_parameters=values)
    return [result.to_json_dict() for result in outcome.results]


def _failure(result: dict[str, Any], table: pd.DataFrame) -> Failure:
    config, found = result["expectation_config"], result["result"]
    kind = config["type"].removeprefix("expect_").removeprefix("column_values_to_")
    column = config["kwargs"].get("column", "")
    indices = found.get("unexpected_index_list") or []
    ids = [str(index["id"] if isinstance(index, dict) else index) for index in indices]
    if kind == "column_to_exist":
        return Failure(kind, column, f"column missing, the table has {', '.join(map(str, table.columns))}", ())
    told = _message(config, found, result["exception_info"])
    if column in SAID:
        values = found.get("unexpected_list") or []
        shown = "; ".join(
            f"{row_id} {SAID[column]} {value}"
            for row_id, value in list(zip(ids, values, strict=False))[:MAX_NAMED_ROWS]
        )
        told = f"{found.get('unexpected_count', len(ids))} rows: {shown}"
    if column in BALANCE and {"id", "label"} <= set(table):
        told = _imbalance(table, ids)
        ids = ids if column == "rows_of_label" else []  # a class out of balance is no fault of its rows
    every = tuple(dict.fromkeys(ids))
    return Failure(kind, column, told, every[:MAX_SHOWN_IDS], every, config.get("severity") == "warning")


def _imbalance(table: pd.DataFrame, ids: list[str]) -> str:
    """The classes of these rows, with how many rows each has, beside the rarest."""
    sizes = table["label"].value_counts()
    meant = sizes[sizes.index.isin(table["label"][table["id"].astype(str).isin(ids)])]
    shown = ", ".join(f"{label} {size}" for label, size in meant.items())
    return f"rows of class {shown}; of the rarest, {sizes.index[-1]}, {sizes.iloc[-1]}"


def _message(config: dict[str, Any], found: dict[str, Any], exception: dict[str, Any]) -> str:
    wanted = {
        name: value
        for name, value in config["kwargs"].items()
        if name not in ("column", "batch_id") and value is not None
    }
    asked = config["type"].removeprefix("expect_").replace("_", " ")
    asked += f" {json.dumps(wanted, default=str)}" if wanted else ""
    if "unexpected_count" in found:
        return f"{found['unexpected_count']} rows fail: {asked}"
    if "observed_value" in found:
        return f"found {found['observed_value']}, but {asked}"
    inner = exception if "exception_message" in exception else next(iter(exception.values()), {})
    return f"could not be checked ({inner.get('exception_message', 'no reason given')}): {asked}"
