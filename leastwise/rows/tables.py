"""The rows of a use case, table by table, each checked before anything is spent (its YAML: `use_case_file.py`).

It does not decide what a row may look like beyond that (see `leastwise.rows.validation`) and it never writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.rows import expected_answers, gold, made_rows, personal_data, row_checks, splits
from leastwise.stores import storage
from leastwise.stores.tables import drawn_rows, table_files, table_times, table_values
from leastwise.use_case import UseCase
from leastwise.use_case.data import Data

if TYPE_CHECKING:
    import pandas as pd

TABLES = (
    "gate",
    "test",
    "train",
    "dev",
    "documents",
    "unlabelled",
    "out_of_scope",
    "out_of_scope_dev",
    "unrelated",
    "shifted",
    "traffic",
    "graded",
    "general",
    "general_tasks",
    "paraphrases",
)
LABELLED = frozenset({"gate", "test", "train", "dev", "shifted", "traffic", "graded"})
LABELLED_OR_GRADED = frozenset({"gate", "test", "dev", "shifted", "traffic"})  # a judge needs no expected answer there
MEASURED = frozenset({"gate", "test", "out_of_scope", "shifted", "traffic"})
KINDS = frozenset({"out_of_scope", "out_of_scope_dev", "shifted"})
TIME = "leastwise_time"  # when a request of the traffic came, unix seconds, where data.time_column says it
KIND = "leastwise_kind"  # the column of data.kind_column in out-of-scope and shifted rows
ACROSS = (gold.check, expected_answers.check_room, splits.check_lengths)  # looked at once every table is read
UNIT = "leastwise_unit"  # the column of data.unit_by under a name no table has, in the tables that are measured


class Tables:
    """The rows of a use case, each table read once, and checked when it is read."""

    def __init__(self, use_case: UseCase) -> None:
        self.use_case = use_case
        self._frames: dict[str, pd.DataFrame | None] = {}
        self._whole: dict[str, pd.DataFrame | None] = {}  # with the rows whose labels are held out
        self._lengths: dict[str, int] = {}  # rows of a file of which only some are used
        self._columns: set[str] = set()  # of any table's file

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

    def rows(self, name: str) -> int:
        """How many rows a table has; 0 where there is none."""
        frame = self.get(name)
        return 0 if frame is None else len(frame)

    def written_rows(self, name: str) -> int:
        """How many rows the file of a table has where it is longer than what is used of it; else those of the table."""
        return self._lengths[name] if self._is_part(name) else self.rows(name)

    def _is_part(self, name: str) -> bool:
        whole = self._whole_table(name)
        return whole is not None and self._lengths.get(name, len(whole)) > len(whole)

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
        kept = None if frame is None else self._without_held_out(name, frame)
        if frame is not None and kept is not None:
            made_rows.check_left(len(frame), len(kept), name)
        return kept

    def _without_held_out(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        held_out = self.use_case.data.held_out_labels
        if not held_out or name not in LABELLED:
            return frame
        return frame[~frame["label"].isin(held_out)].reset_index(drop=True)

    def _out_of_scope(self, name: str, labelled: Sequence[str], judges: bool) -> pd.DataFrame | None:
        """Inputs to decline: the table itself, the held-out rows of labelled ones, and a half of what is unrelated."""
        data = self.use_case.data
        own, unrelated = self._whole_table(name), self._whole_table("unrelated")
        parts = [own, *made_rows.held_out([self._whole_table(each) for each in labelled], data.held_out_labels)]
        parts += [made_rows.half(unrelated, judges)] if unrelated is not None else []
        parts = [
            part.rename(columns={"kind": KIND}) if part is not None and KIND not in part else part for part in parts
        ]
        made = _together(parts, f"data.{name}")
        if judges and data.has_out_of_scope:
            made_rows.check_some(made, name, labelled, data.held_out_labels)
        return made

    def _whole_table(self, name: str) -> pd.DataFrame | None:
        if name not in self._whole:
            self._whole[name] = self._read(name)
        return self._whole[name]

    def _read(self, name: str) -> pd.DataFrame | None:
        data = self.use_case.data
        uri = getattr(data, name)
        if uri is None:
            return None
        if not _is_there(name, uri):
            raise BadInput(
                f"data.{name}: {uri} does not exist; build it (`make data` builds the shipped ones) or correct the path"
            )
        source = f"data.{name} ({uri})"
        if name == "traffic":
            return self._traffic(uri, source)
        raw = _raw(uri, data, source)
        return self._identified(name, self._with_own_columns(name, raw, source), source)

    def _traffic(self, uri: str, source: str) -> pd.DataFrame:
        """The requests that are replayed, in the order they came; all rows of the table are checked."""
        blocks = partial(self._blocks, uri, source)
        most = self.use_case.caching.replay_requests
        drawn = drawn_rows.stretch(blocks, most, self.hashes["traffic"], source)
        self._lengths["traffic"] = drawn.of
        frame = self._identified("traffic", drawn.rows, source)
        return frame if drawn.seconds is None else frame.assign(**{TIME: drawn.seconds})

    def _blocks(self, uri: str, source: str, drawn: drawn_rows.IsDrawn | None) -> Iterator[drawn_rows.Block]:
        data = self.use_case.data
        for raw in _raw_blocks(uri, data, source):
            part = raw if drawn is None else raw[drawn[raw.index]]
            if drawn is not None and not len(part):
                continue
            times = table_times.times_of(part, data.time_column, source) if data.time_column else None
            yield drawn_rows.Block(self._with_own_columns("traffic", part, source), times)

    def _with_own_columns(self, name: str, raw: pd.DataFrame, source: str) -> pd.DataFrame:
        """Rows as their file has them, checked, all but their ids, with what only some tables have."""
        data = self.use_case.data
        self._columns |= set(raw.columns)
        frame = self._checked(name, _named(raw, data, source, name), source)
        if name in KINDS and data.kind_column in raw:
            frame[KIND] = raw[data.kind_column]
        if data.gold_column and data.gold_column in raw:
            frame[gold.GOLD] = gold.written(raw[data.gold_column], data.gold_column, source)
        if data.unit_by and name in MEASURED:
            units = row_checks.units_of(raw, data, name, source)
            if units is not None:
                frame[UNIT] = units
        return frame

    def _identified(self, name: str, frame: pd.DataFrame, source: str) -> pd.DataFrame:
        """The rows with an id each, or the id of the row that each paraphrases."""
        if name == "paraphrases":
            row_checks.check_paraphrases(frame, self.get("gate"), source)
            return frame
        frame = table_values.with_ids(frame, derives=self.use_case.data.id_column == "id")
        row_checks.check_ids(frame, source)
        return frame

    def _checked(self, name: str, frame: pd.DataFrame, source: str) -> pd.DataFrame:
        """The frame with its texts masked and its labels as one string each, once its rows hold."""
        data, task = self.use_case.data, self.use_case.task
        is_labelled = name in LABELLED and ("label" in frame or not self._may_lack_labels(name))
        allowed = (*task.answers, *data.held_out_labels) if is_labelled and task.answers else None
        if allowed and "label" in frame:
            frame["label"] = expected_answers.label_texts(allowed, frame["label"], source)
        label = "label" if is_labelled else None
        row_checks.check_rows(frame, source=source, text="text", label=label, labels=allowed, id=None)
        also = () if name in LABELLED else ("choices", "label")
        frame = personal_data.mask_columns(frame, data.mask, *also)
        if name in LABELLED:
            frame["label"] = (
                expected_answers.expected_texts(task, frame["label"], source, data.mask) if is_labelled else None
            )
        if name == "graded":
            frame["grade"] = row_checks.grades(frame, source)
            frame["answer"] = table_values.text_column(frame, "answer", source)
        return frame

    def _may_lack_labels(self, name: str) -> bool:
        return name == "graded" or (self.use_case.is_graded and name in LABELLED_OR_GRADED)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every table's file."""
        paths = self.use_case.data.model_dump()
        return {name: storage.sha256(paths[name]) for name in TABLES if paths[name]}

    def check(self) -> None:
        """Read and check every table, leakage between splits and text lengths, before anything is spent."""
        each = [partial(self.get, name) for name in TABLES]
        across = [partial(check, self.use_case, self.get) for check in ACROSS]
        across.append(partial(row_checks.check_named_columns, self.use_case.data, each, self._columns))
        refuse(problems_of([*each, *across, partial(splits.check_leakage, self.use_case, self.get, self._texts)]))

    def _texts(self, name: str) -> Iterator[pd.Series]:
        """The texts of a whole table, of traffic those too that are not replayed, masked as they are asked."""
        if not self._is_part(name):
            yield self.need(name)["text"]
            return
        data, uri = self.use_case.data, str(getattr(self.use_case.data, name))
        for raw in _raw_blocks(uri, data, source := f"data.{name} ({uri})"):
            rows = self._with_own_columns(name, raw, source) if data.held_out_labels else _named(raw, data, source)
            yield personal_data.mask_columns(self._without_held_out(name, rows), data.mask)["text"]


def window(uri: str, data: Data, source: str) -> Iterator[pd.DataFrame]:
    """Recent inputs a block at a time, their text as every table of the use case has it; BadInput for missing or empty
    text.
    """
    for raw in _raw_blocks(uri, data, source):
        rows = _named(raw, data, source)
        row_checks.check_rows(rows, source, label=None, id=None)
        yield personal_data.mask_columns(rows, data.mask)


def _is_there(name: str, uri: str) -> bool:
    try:
        return storage.exists(uri)
    except (BadInput, OSError, ValueError) as error:  # a name too long, or with a NUL
        raise BadInput(f"data.{name}: {str(error)[:300]}; correct the path") from None


def _raw(uri: str, data: Data, source: str) -> pd.DataFrame:
    """A table as its file has it, but for the columns that group or name rows: those are text."""
    return _grouped(table_files.read_table(uri), data, source)


def _raw_blocks(uri: str, data: Data, source: str) -> Iterator[pd.DataFrame]:
    """The same a block of rows at a time."""
    return (_grouped(block, data, source) for block in table_files.read_blocks(uri))


def _grouped(raw: pd.DataFrame, data: Data, source: str) -> pd.DataFrame:
    for column in {data.unit_by, data.split_by, data.kind_column} & set(raw.columns):
        raw[column] = table_values.name_column(raw, str(column), source)
    return raw


def _named(raw: pd.DataFrame, data: Data, source: str, table: str = "") -> pd.DataFrame:
    """The table with columns id, text and label where it has them, ids and texts as text.

    The column that the use case names is used, whatever else the table has; where it is missing, one of the standard
    name. What had a standard name and is not the one named is left out.
    """
    sources = data.columns_of(table)
    used = {name: column if column in raw else name for name, column in sources.items()}
    used = {name: column for name, column in used.items() if column in raw}
    if "text" not in used and data.text_column != "text" and len(raw):
        raise BadInput(
            f"{source}: no column {data.text_column!r}, which data.text_column names (it has "
            f"{', '.join(map(str, raw.columns))}). Add it, or correct data.text_column."
        )
    frame = raw.drop(columns=list({*used.values(), *(sources.keys() & set(raw.columns))}))
    for name, column in used.items():
        as_text = table_values.name_column if name == "id" else table_values.text_column
        frame[name] = raw[column] if name == "label" else as_text(raw, column, source)
    if data.split_by in raw and data.split_by not in frame:
        frame[data.split_by] = raw[data.split_by]
    return frame


def _together(parts: Sequence[pd.DataFrame | None], source: str) -> pd.DataFrame | None:
    """These rows as one table with unique ids; a row without a unit is one of its own. None where there are none."""
    import pandas as pd

    present = [part for part in parts if part is not None]
    if not present:
        return None
    frame = pd.concat(present, ignore_index=True) if len(present) > 1 else present[0]
    if len(present) > 1:
        row_checks.check_rows(frame, source=f"{source} with what is made", text="text", label=None, id="id")
    if UNIT in frame:
        frame[UNIT] = frame[UNIT].where(frame[UNIT].notna(), "row " + frame["id"].astype(str))
    return frame
