"""Reading a use case: a saved name, a path or a URI, to a checked `UseCase` with absolute paths.

It reads no table (see `leastwise.rows.tables`) and never writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from leastwise.errors import BadInput
from leastwise.metrics.schema_adherence import check_schema
from leastwise.part import Part
from leastwise.rows.tables import TABLES
from leastwise.stores import storage
from leastwise.stores.shipped import USE_CASES
from leastwise.stores.yaml_file import read_yaml
from leastwise.use_case import Approval, Stage, UseCase
from leastwise.use_case.hosts import addressed
from leastwise.use_case.settings import EndpointLeft

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # looked for so, since a library that knows takes seconds to import


class Overrides(Part):
    """What the run form may change of a saved use case. Everything left empty stays as it is in the file."""

    quality_bound: float | None = Field(None, gt=0, le=1, description="Quality wanted, a share in 0..1.")
    adherence_bound: float | None = Field(None, gt=0, le=1, description="Share of outputs in the demanded format.")
    p95_latency_ms_bound: float | None = Field(None, gt=0, description="95th percentile of latency, milliseconds.")
    usd_per_1k_requests_bound: float | None = Field(None, gt=0, description="All-in dollars for 1,000 requests.")
    budget_usd: float | None = Field(None, ge=0, description="Hard cap on what this climb spends, dollars.")
    budget_usd_per_month: float | None = Field(None, ge=0, description="Hard cap on all flows of a month, dollars.")
    last_stage: Stage | None = Field(None, description="The last stage this climb may reach.")
    approve_pretrain: Approval | None = Field(None, description="Leave for continued pre-training.")
    approve_self_host: Approval | None = Field(None, description="Leave for self-hosting.")
    endpoint: EndpointLeft | None = Field(
        None, description="Where self_host leaves what passed: process (on the machine), cluster (Kubernetes), or none."
    )

    def applied_to(self, raw: Mapping[str, object]) -> dict[str, object]:
        """The use case's fields with these changes; BadInput for a bound of a requirement it does not have."""
        changed = dict(raw)
        requirements = _mapping(raw, "requirements")
        bounds = {
            "quality": self.quality_bound,
            "adherence": self.adherence_bound,
            "p95_latency_ms": self.p95_latency_ms_bound,
            "usd_per_1k_requests": self.usd_per_1k_requests_bound,
        }
        for name, bound in bounds.items():
            if bound is None:
                continue
            if name not in requirements:
                raise BadInput(f"overrides.{name}_bound: the use case has no requirement {name}; add it to the file")
            requirements[name] = _mapping(requirements, name) | {"bound": bound}
        changed["requirements"] = requirements
        limits = {
            "budget_usd": self.budget_usd,
            "budget_usd_per_month": self.budget_usd_per_month,
            "last_stage": self.last_stage,
        }
        changed |= {name: value for name, value in limits.items() if value is not None}
        leave = {"pretrain": self.approve_pretrain, "self_host": self.approve_self_host}
        if self.endpoint:
            changed["hosting"] = _mapping(raw, "hosting") | {"endpoint": self.endpoint}
        changed["approvals"] = _mapping(raw, "approvals") | {k: v for k, v in leave.items() if v is not None}
        return changed


def _mapping(raw: Mapping[str, object], name: str) -> dict[str, object]:
    value = raw.get(name) or {}
    if not isinstance(value, Mapping):
        raise BadInput(f"{name}: is no mapping of fields (given: {value!r}); correct it in the use case's file")
    return dict(value)


def load(name_or_uri: str, overrides: Overrides | None = None) -> UseCase:
    """A use case by its saved name, path or URI, with paths made absolute; BadInput names the file and the field."""
    uri = locate(name_or_uri)
    raw = read_yaml(storage.read_bytes(uri), uri)
    if not isinstance(raw, dict):
        raise BadInput(f"{uri}: is empty or no mapping; start from one of {USE_CASES}/*.yaml")
    if overrides:
        raw = overrides.applied_to(raw)
    try:
        raw = addressed(raw, os.environ)
    except BadInput as error:
        raise BadInput(f"{uri}: {error}") from None
    try:
        use_case = UseCase.model_validate(raw)
    except ValidationError as error:
        raise BadInput(f"{uri}: {explain(error)}") from None
    if wrong := list(_misread(raw, use_case)):
        raise BadInput(f"{uri}: {'; '.join(wrong)}")
    _check_schema(use_case, uri)
    _check_units(use_case, uri)
    return _with_absolute_paths(_with_its_trainer(use_case), uri)


def _with_its_trainer(use_case: UseCase) -> UseCase:
    """Who trains is settled when a use case is read, and recorded with its climb: every machine that works on it then
    goes by one.
    """
    training = use_case.training
    is_there = use_case.models.base is not None and gpus_are_at_hand()
    if training.managed is None or training.managed.when == "always" or not is_there:
        return use_case
    return use_case.model_copy(update={"training": training.model_copy(update={"managed": None})})


def gpus_are_at_hand() -> bool:
    """Whether trainings run on a pool for them, or this machine's kernel has a GPU."""
    return os.environ.get("LEASTWISE_POOLS") == "1" or any(Path(each).exists() for each in GPU_DEVICES)


def _misread(given: object, value: object, place: str = "") -> Iterator[str]:
    """Every place of `value`, the checked form of `given`, whose number is not what somebody wrote there: a truth
    value, or a limit without end.
    """
    inner: list[tuple[str, object, object]] = []
    if isinstance(value, Part) and isinstance(given, Mapping):
        inner = [(name, given[name], getattr(value, name)) for name in value.model_fields_set if name in given]
    elif isinstance(value, Mapping) and isinstance(given, Mapping):
        inner = [(str(name), given[name], each) for name, each in value.items() if name in given]
    elif isinstance(value, tuple) and isinstance(given, list) and len(value) == len(given):
        inner = [(str(at), one, each) for at, (one, each) in enumerate(zip(given, value, strict=True))]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(given, bool):
            yield f"{place}: YAML reads a truth value ({str(given).lower()}) where a number is wanted; write the number"
        elif not isfinite(value):
            yield f"{place}: {given} is no number that can be used; write one, or leave the field out"
    for name, one, each in inner:
        yield from _misread(one, each, f"{place}.{name}" if place else name)


def _check_schema(use_case: UseCase, uri: str) -> None:
    if use_case.task.kind == "extraction":
        try:
            check_schema(use_case.task.json_schema)
        except BadInput as error:
            raise BadInput(f"{uri}: task.{error}") from None


def _check_units(use_case: UseCase, uri: str) -> None:
    """A file that counts rows of one group one by one says why; what was logged before that rule is read without."""
    data = use_case.data
    if data.split_by and data.unit_by is None and not data.rows_are_units_because:
        raise BadInput(
            f"{uri}: data.unit_by: null counts every row that shares {data.split_by!r} (data.split_by) as an example "
            "of its own, which gave 12% false PASS at alpha .05 where such rows are alike; remove unit_by, so that "
            "they count once, or say in data.rows_are_units_because why they are independent"
        )


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
    errors = error.errors()
    places = [each["loc"] for each in errors]
    return "; ".join(_explain_one(each) for each in errors if not _follows(each, places))


def _follows(each: ErrorDetails, places: Sequence[tuple[int | str, ...]]) -> bool:
    """Whether a list is too short only since what stands in it could not be read."""
    at = each["loc"]
    return each["type"] == "too_short" and any(len(place) > len(at) and place[: len(at)] == at for place in places)


def _explain_one(each: ErrorDetails) -> str:
    at = each["loc"]
    if len(at) > 1 and at[0] == "task":  # then comes the kind, which is no field of the file
        at = (at[0], *at[2:])
    field, given = ".".join(str(part) for part in at), each["input"]
    if each["type"] == "extra_forbidden":
        return f"{field}: unknown field; remove it or check its spelling"
    if each["type"] == "missing":
        return f"{field}: is missing; add it"
    if each["type"] == "string_type" and not isinstance(given, str):
        return f"{field}: {_not_text(given)}"
    if wanted := _WANTED.get(each["type"]):
        return f"{field}: {wanted} (given: {str(given)[:60]!r})"
    message = each["msg"].removeprefix("Value error, ")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float)) else ""
    return f"{field}: {message}{shown}" if field else message


_LIST, _FIELDS = "is no list; write one, an item a line after `- `", "is no mapping; write fields, `name: value` a line"
_WANTED = {"tuple_type": _LIST, "list_type": _LIST, "model_type": _FIELDS, "dict_type": _FIELDS}
_WANTED |= dict.fromkeys(("model_attributes_type", "mapping_type"), _FIELDS)


def _not_text(given: object) -> str:
    if isinstance(given, (dict, list)):
        return f"YAML reads a {'mapping' if isinstance(given, dict) else 'list'} ({str(given)[:60]}); a text is wanted"
    return f"YAML reads {'nothing (null)' if given is None else given} as no text; write it in quotes"


def _with_absolute_paths(use_case: UseCase, uri: str) -> UseCase:
    base_dir = uri.rsplit("/", 1)[0]
    paths = {name: getattr(use_case.data, name) for name in TABLES}
    absolute = {name: _absolute(name, path, base_dir, uri) for name, path in paths.items() if path}
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=absolute)})


def _absolute(name: str, path: str, base_dir: str, uri: str) -> str:
    try:
        return storage.resolve(path, base_dir)
    except (BadInput, OSError, ValueError, RuntimeError) as error:  # a name too long, with a NUL, of a user who is none
        raise BadInput(f"{uri}: data.{name}: {str(error)[:300]}; correct the path") from None
