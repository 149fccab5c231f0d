"""Reading a use case: a saved name, a path or a URI, to a checked `UseCase` with absolute paths.

It reads no table (see `leastwise.rows.tables`) and never writes.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from leastwise.errors import BadInput
from leastwise.rows.overrides import Overrides
from leastwise.rows.tables import TABLES
from leastwise.stores import storage
from leastwise.stores.shipped import USE_CASES
from leastwise.use_case import UseCase


def load(name_or_uri: str, overrides: Overrides | None = None) -> UseCase:
    """A use case by its saved name, path or URI, with paths made absolute; BadInput names the file and the field."""
    uri = locate(name_or_uri)
    try:
        raw = yaml.safe_load(storage.read_bytes(uri))
    except yaml.YAMLError as error:
        raise BadInput(f"{uri}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{uri}: is empty or no mapping; start from one of {USE_CASES}/*.yaml")
    if overrides:
        raw = overrides.applied_to(raw)
    try:
        use_case = UseCase.model_validate(raw)
    except ValidationError as error:
        raise BadInput(f"{uri}: {explain(error)}") from None
    return _with_absolute_paths(use_case, uri)


def locate(name_or_uri: str) -> str:
    """The URI of a saved use case's file."""
    if "/" in name_or_uri or name_or_uri.endswith((".yaml", ".yml")):
        if "://" not in name_or_uri and not Path(name_or_uri).exists():
            raise BadInput(f"{name_or_uri}: no such file; saved use cases are {', '.join(saved())}")
        return name_or_uri if "://" in name_or_uri else str(Path(name_or_uri).resolve())
    path = USE_CASES / f"{name_or_uri}.yaml"
    if not path.exists():
        raise BadInput(
            f"use_case: no saved use case {name_or_uri!r}; there are {', '.join(saved())}, or give a path or URI"
        )
    return str(path)


def saved() -> list[str]:
    """Names of the saved use cases."""
    return sorted(path.stem for path in USE_CASES.glob("*.yaml"))


def explain(error: ValidationError) -> str:
    """A validation error as one line: each field by its path, what is wrong, and what was given."""
    return "; ".join(_explain_one(each) for each in error.errors())


def _explain_one(each: ErrorDetails) -> str:
    at = each["loc"]
    if len(at) > 1 and at[0] == "task":  # then comes the kind, which is no field of the file
        at = (at[0], *at[2:])
    field = ".".join(str(part) for part in at)
    if each["type"] == "extra_forbidden":
        return f"{field}: unknown field; remove it or check its spelling"
    if each["type"] == "missing":
        return f"{field}: is missing; add it"
    message = each["msg"].removeprefix("Value error, ")
    shown = f" (given: {each['input']!r})" if isinstance(each["input"], (str, int, float)) else ""
    return f"{field}: {message}{shown}" if field else message


def _with_absolute_paths(use_case: UseCase, uri: str) -> UseCase:
    base_dir = uri.rsplit("/", 1)[0]
    paths = {name: getattr(use_case.data, name) for name in TABLES}
    absolute = {name: storage.resolve(path, base_dir) for name, path in paths.items() if path}
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=absolute)})
