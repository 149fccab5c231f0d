"""The rows of a use case, table by table, each checked before anything is spent (its YAML: `use_case_file.py`).

It does not decide what a row may look like beyond that (see `leastwise.rows.validation`) and it never writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.rows import expected_answers, gold, made_rows, personal_data, row_checks, splits
from leastwise.rows.reading import raw_tables, request_log
from leastwise.rows.reading.raw_tables import named, raw_requests
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
        raw = raw_tables.raw(uri, data, source, are_answers=name == "graded")
        return self._identified(name, self._with_own_columns(name, raw, source), source)

    def _traffic(self, uri: str, source: str) -> pd.DataFrame:
        """The requests that are replayed, in the order they came; all rows of the table are checked.

        Expected answers count only where every row of the table has one: without those of some, which requests
        happened to be labelled would decide what is measured.
        """
        unlabelled = 0

        def blocks(drawn: drawn_rows.IsDrawn | None) -> Iterator[drawn_rows.Block]:
            nonlocal unlabelled
            unlabelled = 0 if drawn is None else unlabelled
            for block in self._blocks(uri, source, drawn):
                unlabelled += int(block.rows["label"].isna().sum()) if drawn is None else 0
                yield block

        most = self.use_case.caching.replay_requests
        drawn = drawn_rows.stretch(blocks, most, self.hashes["traffic"], source)
        self._lengths["traffic"] = drawn.of
        frame = self._identified("traffic", drawn.rows, source)
        if unlabelled and not self.use_case.is_graded:
            frame["label"] = None
            expected_answers.say_unlabelled(unlabelled, drawn.of, source)
        return frame if drawn.seconds is None else frame.assign(**{TIME: drawn.seconds})

    def _blocks(self, uri: str, source: str, drawn: drawn_rows.IsDrawn | None) -> Iterator[drawn_rows.Block]:
        room = raw_tables.room_in_characters(self.use_case)
        for raw in raw_requests(uri, self.use_case.data, source, self._traffic_parts, room):
            part = raw if drawn is None else raw[drawn[raw.index]]
            if drawn is not None and not len(part):
                continue
            with table_files.part_named(raw):
                column = self.use_case.data.time_column or request_log.time_column(part.columns)
                times = table_times.times_of(part, column, source) if column else None
                yield drawn_rows.Block(self._with_own_columns("traffic", part, source), times)

    def _with_own_columns(self, name: str, raw: pd.DataFrame, source: str) -> pd.DataFrame:
        """Rows as their file has them, checked, all but their ids, with what only some tables have."""
        data = self.use_case.data
        self._columns |= set(raw.columns)
        frame = self._checked(name, named(raw, data, source, name), source)
        if name in KINDS and data.kind_column in raw:
            frame[KIND] = raw[data.kind_column]
        if data.gold_column and data.gold_column in raw:
            frame[gold.GOLD] = gold.written(raw[data.gold_column], data.gold_column, source)
        if data.unit_by and name in MEASURED:
            units = row_checks.units_of(raw, data, name, source, may_lack=request_log.is_log(raw.columns))
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
        if name == "traffic" and not self.use_case.is_graded and (lacking := row_checks.without_label(frame)).any():
            return self._partly_labelled(frame, lacking, source)
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

    def _partly_labelled(self, frame: pd.DataFrame, lacking: pd.Series, source: str) -> pd.DataFrame:
        """Requests of which not each has an expected answer: what is given is checked as anywhere, the rest is None."""
        labelled = frame[~lacking]
        labels = self._checked("traffic", labelled, source)["label"] if len(labelled) else labelled.get("label")
        row_checks.check_rows(frame, source=source, label=None, id=None)
        frame = personal_data.mask_columns(frame, self.use_case.data.mask)
        return frame.assign(label=None if labels is None else labels.reindex(frame.index))

    def _may_lack_labels(self, name: str) -> bool:
        return name == "graded" or (self.use_case.is_graded and name in LABELLED_OR_GRADED)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every table's file, or of its files."""
        paths = self.use_case.data.model_dump()
        parts = {"traffic": self._traffic_parts}
        return {name: table_files.sha256(paths[name], parts.get(name, ())) for name in TABLES if paths[name]}

    @cached_property
    def _traffic_parts(self) -> list[str]:
        """The files of the traffic, the same however often it is read: an endpoint's log may grow meanwhile."""
        return table_files.parts_of(self.use_case.data.traffic) if self.use_case.data.traffic else []

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
        source, room = f"data.{name} ({uri})", raw_tables.room_in_characters(self.use_case)
        for raw in raw_requests(uri, data, source, self._traffic_parts, room):
            rows = self._with_own_columns(name, raw, source) if data.held_out_labels else named(raw, data, source)
            yield personal_data.mask_columns(self._without_held_out(name, rows), data.mask)["text"]


def window(uri: str, data: Data, source: str, parts: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """Recent inputs a block at a time (of these `parts` of a folder), their text as every table of the use case has it;
    BadInput for missing or empty text.
    """
    for raw in raw_requests(uri, data, source, parts):
        with table_files.part_named(raw):
            rows = named(raw, data, source)
            row_checks.check_rows(rows, source, label=None, id=None)
        yield personal_data.mask_columns(rows, data.mask)


def _is_there(name: str, uri: str) -> bool:
    try:
        return storage.exists(uri)
    except (BadInput, OSError, ValueError) as error:  # a name too long, or with a NUL
        raise BadInput(f"data.{name}: {str(error)[:300]}; correct the path") from None


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
