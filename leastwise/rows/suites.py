"""Expectation suites: `expectations/NAME.json` as data, and what Great Expectations says of a table by one.

It judges nothing (see `leastwise.rows.validation`) and adds no column to a table.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import AliasPath, BaseModel, Field, ValidationError

from leastwise.errors import BadInput
from leastwise.stores.shipped import EXPECTATIONS

if TYPE_CHECKING:
    import pandas as pd

Parameters = dict[str, object]
LOGGERS = ("great_expectations", "great_expectations.data_context.types.base")  # the second sets a level of its own


class Meta(BaseModel):
    """What a suite may be told: parameters with a default, and names of those that must be given."""

    defaults: Parameters
    required: tuple[str, ...]


class Suite(BaseModel):
    """One file of `expectations/`; each expectation as Great Expectations writes it."""

    name: str
    meta: Meta
    expectations: list[dict[str, object]]

    def filled(self, overrides: Parameters) -> Parameters:
        """The value of every parameter; BadInput for one that is unknown or missing."""
        unknown = sorted(set(overrides) - set(self.meta.defaults) - set(self.meta.required))
        absent = sorted(set(self.meta.required) - set(overrides))
        if unknown or absent:
            raise BadInput(f"suite {self.name!r}: unknown parameters {unknown}, missing parameters {absent}.")
        values = {**self.meta.defaults, **overrides}
        if isinstance(labels := values.get("labels"), (list, tuple)):
            values["labels"] = sorted(labels)
        return values


class Config(BaseModel):
    """An expectation as it was run."""

    type: str
    arguments: Parameters = Field(validation_alias=AliasPath("kwargs"))
    severity: str | None = None

    @property
    def column(self) -> str:
        """Its column; empty where the whole table is meant."""
        return str(self.arguments.get("column", ""))


class Finding(BaseModel):
    """What was seen in the table; which fields are set depends on the kind of expectation."""

    unexpected_index_list: list[dict[str, object] | int] | None = None
    unexpected_list: list[object] | None = None
    unexpected_count: int | None = None
    observed_value: object = None


class Outcome(BaseModel):
    """What Great Expectations says of one expectation."""

    success: bool
    expectation_config: Config
    result: Finding
    exception_info: dict[str, object]

    @property
    def failing_ids(self) -> list[str]:
        """Ids of the rows that fail, or their positions in a table without ids."""
        places = self.result.unexpected_index_list or []
        return [str(place["id"] if isinstance(place, dict) else place) for place in places]

    @property
    def exception_message(self) -> str:
        """Why it could not be checked."""
        info: object = self.exception_info
        if "exception_message" not in self.exception_info:
            info = next(iter(self.exception_info.values()), {})
        return str(info.get("exception_message", "no reason given")) if isinstance(info, Mapping) else str(info)


def suite_of(name: str) -> Suite:
    """A suite by its name; BadInput where there is none, or its file is no suite."""
    path = EXPECTATIONS / f"{name}.json"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in EXPECTATIONS.glob("*.json")))
        raise BadInput(f"{path}: no such suite. Use one of {names}, or add the file.")
    try:
        return Suite.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise BadInput(f"{path}: no suite ({where}: {first['msg']}). Correct it.") from error


def run(table: pd.DataFrame, suite: Suite, parameters: Parameters) -> list[Outcome]:
    """What each expectation comes to; `parameters` as `Suite.filled` gives them."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    for logger in LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch(batch_parameters={"dataframe": table})
    result_format: dict[str, object] = {"result_format": "COMPLETE"}
    if "id" in table:
        result_format["unexpected_index_column_names"] = ["id"]
    outcome = batch.validate(
        gx.ExpectationSuite(name=suite.name, expectations=suite.expectations),
        result_format=result_format,
        expectation_parameters=parameters,
    )
    return [Outcome.model_validate(result.to_json_dict()) for result in outcome.results]
