"""Reading a use case: the YAML, the overrides of a run form, and its rows, each checked before anything is spent.

It does not decide what a row may look like beyond that (see `tasks.validation`) and it never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leastwise.errors import BadInput
from leastwise.use_case import Approval, Stage, UseCase
from tasks import made_rows, personal_data, scoring, storage, validation

if TYPE_CHECKING:
    import pandas as pd

SAVED = Path(__file__).parents[1] / "use_cases"
CHARS_PER_TOKEN = 3.0  # below every tokenizer's average for English, so that a text let through does fit


class Overrides(BaseModel):
    """What the run form may change of a saved use case. Everything left empty stays as it is in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality_bound: float | None = Field(None, gt=0, le=1, description="Quality wanted, a share in 0..1.")
    adherence_bound: float | None = Field(None, gt=0, le=1, description="Share of outputs in the demanded format.")
    p95_latency_ms_bound: float | None = Field(None, gt=0, description="95th percentile of latency, milliseconds.")
    usd_per_1k_requests_bound: float | None = Field(None, gt=0, description="All-in dollars for 1,000 requests.")
    budget_usd: float | None = Field(None, ge=0, description="Hard cap on what this climb spends, dollars.")
    budget_usd_per_month: float | None = Field(None, ge=0, description="Hard cap on all flows of a month, dollars.")
    last_stage: Stage | None = Field(None, description="The last stage this climb may reach.")
    approve_pretrain: Approval | None = Field(None, description="Leave for continued pre-training.")
    approve_self_host: Approval | None = Field(None, description="Leave for self-hosting.")

    def applied_to(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The use case's fields with these changes."""
        changed = dict(raw)
        requirements = {k: dict(v) for k, v in (raw.get("requirements") or {}).items() if isinstance(v, Mapping)}
        for name in ("quality", "adherence", "p95_latency_ms", "usd_per_1k_requests"):
            bound = getattr(self, f"{name}_bound")
            if bound is None:
                continue
            if name not in requirements:
                raise BadInput(f"overrides.{name}_bound: the use case has no requirement {name}; add it to the file")
            requirements[name]["bound"] = bound
        changed["requirements"] = requirements
        for name in ("budget_usd", "budget_usd_per_month", "last_stage"):
            if getattr(self, name) is not None:
                changed[name] = getattr(self, name)
        leave = {"pretrain": self.approve_pretrain, "self_host": self.approve_self_host}
        changed["approvals"] = (raw.get("approvals") or {}) | {k: v for k, v in leave.items() if v is not None}
        return changed


def load(name_or_uri: str, overrides: Overrides | None = None) -> UseCase:
    """A use case by its saved name, path or URI, with paths made absolute; BadInput names the file and the field."""
    uri = locate(name_or_uri)
    try:
        raw = yaml.safe_load(storage.read_bytes(uri))
    except yaml.YAMLError as error:
        raise BadInput(f"{uri}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{uri}: is empty or no mapping; start from one of {SAVED}/*.yaml")
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
    path = SAVED / f"{name_or_uri}.yaml"
    if not path.exists():
        raise BadInput(f"use_case: no saved use case {name_or_uri!r}; there are {', '.join(saved())}, or give a path or URI")
    return str(path)


def saved() -> list[str]:
    """Names of the saved use cases."""
    return sorted(path.stem for path in SAVED.glob("*.yaml"))


def explain(error: ValidationError) -> str:
    """A validation error as one line: each field by its path, what is wrong, and what was given."""
    return "; ".join(_explain_one(each) for each in error.errors())


def _explain_one(each: Any) -> str:
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
    given = {name: getattr(use_case.data, name) for name in TABLES}
    absolute = {name: storage.resolve(path, base_dir) for name, path in given.items() if path}
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=absolute)})


TABLES = (
    "gate", "test", "train", "dev", "documents", "unlabelled", "out_of_scope", "out_of_scope_dev", "unrelated", "shifted", "traffic",
    "graded", "general", "general_tasks", "paraphrases",
)  # fmt: skip
LABELLED = frozenset({"gate", "test", "train", "dev", "shifted", "traffic", "graded"})
LABELLED_OR_JUDGED = frozenset({"gate", "test", "dev", "shifted", "traffic"})  # a judge needs no expected answer there
MEASURED = frozenset({"gate", "test", "out_of_scope", "shifted", "traffic"})
KINDS = frozenset({"out_of_scope", "out_of_scope_dev", "shifted"})
TIME = "leastwise_time"  # when a request of the traffic came, unix seconds, where data.time_column says it
KIND = "leastwise_kind"  # the column of data.kind_column in out-of-scope and shifted rows
UNIT = "leastwise_unit"  # the column of data.unit_by under a name no table has, in the tables that are measured


class Tables:
    """The rows of a use case, each table read once, and checked when it is read."""

    def __init__(self, use_case: UseCase) -> None:
        self.use_case = use_case
        self._frames: dict[str, pd.DataFrame | None] = {}
        self._whole: dict[str, pd.DataFrame | None] = {}  # with the rows whose labels are held out

    def get(self, name: str) -> pd.DataFrame | None:
        """A table with columns id, text and (where it is labelled) label, or None where the use case has none.

        Where `data.unit_by` is set, the tables that are measured also have its column as UNIT.
        """
        if name not in self._frames:
            self._frames[name] = self._made(name)
        return self._frames[name]

    def need(self, name: str) -> pd.DataFrame:
        """A table that must be there."""
        frame = self.get(name)
        if frame is None:
            raise BadInput(f"data.{name}: is not set in the use case {self.use_case.name}; add it")
        return frame

    def rows(self, name: str) -> int | None:
        """How many rows a table has; 0 where there is none."""
        frame = self.get(name)
        return 0 if frame is None else len(frame)

    def _made(self, name: str) -> pd.DataFrame | None:
        """A table as it is used: its own rows, without what is held out of them, and with what is made."""
        data = self.use_case.data
        if name == "out_of_scope":
            return self._out_of_scope(name, ("gate", "test"), judges=True)
        if name == "out_of_scope_dev":
            return self._out_of_scope(name, ("dev",), judges=False)
        frame = self._whole_table(name)
        if name == "shifted" and data.made_shifts:
            return _together([frame, made_rows.shifted(self.need("gate"), data.made_shifts, KIND)], f"data.{name}")
        if frame is None or not data.held_out_labels or name not in LABELLED:
            return frame
        return frame[~frame["label"].isin(data.held_out_labels)].reset_index(drop=True)

    def _out_of_scope(self, name: str, splits: Sequence[str], judges: bool) -> pd.DataFrame | None:
        """Inputs to decline: those given, the held-out rows of these splits, and a half of what is unrelated."""
        data = self.use_case.data
        given, unrelated = self._whole_table(name), self._whole_table("unrelated")
        parts = [given, *made_rows.held_out([self._whole_table(split) for split in splits], data.held_out_labels)]
        parts += [made_rows.half(unrelated, judges)] if unrelated is not None else []
        parts = [part.rename(columns={"kind": KIND}) if part is not None and KIND not in part else part for part in parts]
        return _together(parts, f"data.{name}")

    def _whole_table(self, name: str) -> pd.DataFrame | None:
        if name not in self._whole:
            self._whole[name] = self._read(name)
        return self._whole[name]

    def _read(self, name: str) -> pd.DataFrame | None:
        data = self.use_case.data
        uri = getattr(data, name)
        if uri is None:
            return None
        if not storage.exists(uri):
            raise BadInput(f"data.{name}: {uri} does not exist; build it (`make data` builds the shipped ones) or correct the path")
        raw, source = storage.read_table(uri), f"data.{name} ({uri})"
        frame = raw.rename(columns=self._columns())
        is_labelled = name in LABELLED and ("label" in frame or not self._may_lack_labels(name))
        validation.check_rows(
            frame,
            source=source,
            text="text",
            label="label" if is_labelled else None,
            labels=(*self.use_case.task.answers, *data.held_out_labels) if is_labelled and self.use_case.task.answers else None,
            id="id" if name != "paraphrases" else None,
        )
        if name == "paraphrases":
            _check_paraphrases(frame, self.get("gate"), source)
        if data.mask:
            frame["text"] = [personal_data.masked(text, data.mask) for text in frame["text"]]
        if name in LABELLED:
            frame["label"] = scoring.expected_texts(self.use_case.task, frame["label"], source) if is_labelled else None
        if name == "graded":
            validation.check_grades(frame, source)
        if data.time_column and name == "traffic":
            frame[TIME] = validation.unix_seconds(raw, data.time_column, source)
            order = frame[TIME].argsort(kind="stable")
            frame, raw = frame.iloc[order].reset_index(drop=True), raw.iloc[order].reset_index(drop=True)
        if name in KINDS and data.kind_column in raw:
            frame[KIND] = raw[data.kind_column]
        if data.unit_by and name in MEASURED:
            _check_units(raw, data.unit_by, source)
            frame[UNIT] = raw[data.unit_by]
        return frame

    def _may_lack_labels(self, name: str) -> bool:
        return name == "graded" or (self.use_case.is_judged and name in LABELLED_OR_JUDGED)

    def _columns(self) -> dict[str, str]:
        data = self.use_case.data
        return {data.id_column: "id", data.text_column: "text", data.label_column: "label"}

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every table's file."""
        paths = self.use_case.data.model_dump()
        return {name: storage.sha256(paths[name]) for name in TABLES if paths[name]}

    def check(self) -> None:
        """Read and check every table, leakage between splits and text lengths, before anything is spent."""
        for name in TABLES:
            self.get(name)
        self._check_lengths()
        self._check_leakage()

    def _check_lengths(self) -> None:
        shortest = min(model.context_tokens for model in self.use_case.models.candidates)
        room = int((shortest - self.use_case.traffic.output_tokens) * CHARS_PER_TOKEN)
        for name in ("gate", "test", "dev", "shifted"):
            frame = self.get(name)
            if frame is None:
                continue
            too_long = frame.index[frame["text"].str.len() > room]
            if len(too_long):
                row = int(too_long[0])
                raise BadInput(
                    f"data.{name}: row {row} has {len(frame.loc[row, 'text']):,} characters, more than the {shortest:,} tokens "
                    f"of context of the smallest model take (about {room:,}); shorten it or set models.candidates.context_tokens"
                )

    def _check_leakage(self) -> None:
        pairs_apart = (("train", "gate"), ("train", "test"), ("dev", "gate"), ("gate", "test"), ("out_of_scope_dev", "out_of_scope"))
        for first, second in pairs_apart:
            one, other = self.get(first), self.get(second)
            if one is None or other is None:
                continue
            self._check_groups(first, one, second, other)
            pairs = validation.leakage(one["text"], other["text"])
            if len(pairs):
                raise BadInput(
                    f"data.{second}: {len(pairs)} texts are in data.{first} too, so the gate would measure memory "
                    f"(first: {pairs[0][:80]!r}); remove them from one of the two"
                )

    def _check_groups(self, first: str, one: pd.DataFrame, second: str, other: pd.DataFrame) -> None:
        column = self.use_case.data.split_by
        if column and column in one and column in other:
            shared = set(one[column]) & set(other[column])
            if shared:
                raise BadInput(
                    f"data.split_by: {column} {sorted(map(str, shared))[0]!r} is both in data.{first} and data.{second}; split by groups"
                )


def _together(parts: Sequence[pd.DataFrame | None], source: str) -> pd.DataFrame | None:
    """These rows as one table with unique ids; a row without a unit is one of its own. None where there are none."""
    import pandas as pd

    given = [part for part in parts if part is not None]
    if not given:
        return None
    frame = pd.concat(given, ignore_index=True) if len(given) > 1 else given[0]
    if len(given) > 1:
        validation.check_rows(frame, source=f"{source} with what is made", text="text", label=None, id="id")
    if UNIT in frame:
        frame[UNIT] = frame[UNIT].where(frame[UNIT].notna(), "row " + frame["id"].astype(str))
    return frame


def _check_paraphrases(frame: pd.DataFrame, gate: pd.DataFrame | None, source: str) -> None:
    """Each says which gate row it paraphrases; several may paraphrase one."""
    known = set() if gate is None else set(gate["id"].astype(str))
    ids = frame["id"].astype(str) if "id" in frame else frame["text"].map(lambda _: "")
    unknown = ~ids.isin(known)
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise BadInput(f"{source}: row {row + 1}: id {ids.iloc[row]!r} is no row of data.gate; give the id of the row it paraphrases")


def _check_units(raw: pd.DataFrame, column: str, source: str) -> None:
    if column not in raw:
        raise BadInput(
            f"{source}: no column {column!r}, which data.unit_by names as the unit of its rows; add it, or correct or "
            f"remove data.unit_by (columns: {', '.join(map(str, raw.columns))})"
        )
    missing = raw[column].isna().to_numpy()
    if missing.any():
        row = int(missing.argmax()) + 1
        raise BadInput(f"{source}: row {row} has no {column!r}, the unit it belongs to (data.unit_by); fill it in")
