"""The question a climb asks: a use case, the content of its rows, and the rows its gates are judged on, in their order.

It draws on no alpha account, reads no price and keeps nothing. Two use cases whose questions have equal keys ask the
same, whatever their budgets, approvals and file paths: what was answered once answers both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from leastwise.content import content_key
from leastwise.evidence.alpha_account import RowHashes
from leastwise.rows import expected_answers, gate_rows
from leastwise.rows.tables import TABLES, TIME, Tables
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

NOT_IN_THE_QUESTION = {
    "description",
    "confirm_rows",
    "approvals",
    "ask_above_usd",
    "budget_usd",
    "budget_usd_per_month",
    "on_undecided",
    "accept_estimate",
    "certificate_days",
}
READ_AND_COUNTED = {
    "mask",
    "time_column",
    "id_column",
    "text_column",
    "label_column",
    "gold_column",
    "unit_by",
    "population",
    "held_out_labels",
    "made_shifts",
    "kind_column",
}
LEFT_AFTERWARDS = {"endpoint", "endpoint_host", "endpoint_port", "cluster", "load_concurrency", "load_seconds"}
# of hosting; on which cluster self_host is judged is in the key of that stage alone
NOT_TRAINED = ("when", "price", "wait_hours", "poll_seconds")  # of training.managed: says nothing of what is trained
ASKED_BESIDE = {"ood_decline": "out_of_scope", "shift_quality": "shifted"}


@dataclass(frozen=True)
class JudgedRows:
    """Rows a stage is judged on, in the order they are asked; `set_hash` names them.

    `is_replayed`: what a request costs and takes depends on those before it, so all are asked before any is judged.
    `is_scored`: whether it is known of their answers how good they are; what needs that is judged on the gate set else.
    """

    rows: pd.DataFrame
    set_hash: str
    is_replayed: bool = False
    is_scored: bool = True


@dataclass(frozen=True)
class DataSet:
    """A table of the use case as a run's input; `sha256` is of its file."""

    name: str
    sha256: str
    uri: str
    rows: int


@dataclass(frozen=True)
class Question:
    """A use case and its rows."""

    use_case: UseCase
    tables: Tables

    @cached_property
    def key(self) -> str:
        """Names what the gates are asked: the use case without money and leave, and the content of its rows."""
        asked = self.use_case.model_dump(mode="json", exclude=NOT_IN_THE_QUESTION)
        # How rows are read and counted changes the answer as much as they do; a default leaves older keys as they were.
        reading = self.use_case.data.model_dump(include=READ_AND_COUNTED, exclude_defaults=True)
        asked["data"] = self.tables.hashes | reading
        asked.get("training", {}).pop("checkpoints", None)  # where they lie changes nothing that is trained
        for name in NOT_TRAINED if self.use_case.training.managed else ():
            asked["training"]["managed"].pop(name, None)
        if not self.use_case.searches:  # the question that was asked before there were any
            asked.pop("search")
        asked["hosting"] = {name: value for name, value in asked["hosting"].items() if name not in LEFT_AFTERWARDS}
        return content_key(json.dumps(asked, sort_keys=True))

    @cached_property
    def gate_hash(self) -> str:
        """Names the gate set, whose alpha account all climbs on it share."""
        return self._set_hash("gate")

    @cached_property
    def asked_rows(self) -> RowHashes:
        """Every row a candidate may be judged on: gate rows, and those of what else is required or reached."""
        required, names = self.use_case.requirements.bounds, ["gate"]
        names += [table for name, table in ASKED_BESIDE.items() if name in required]
        names += ["traffic"] if "cache" in self.use_case.reachable_stages else []
        frames = (self.tables.get(name) for name in names)
        return gate_rows.row_hashes(str(text) for frame in frames if frame is not None for text in frame["text"])

    def _set_hash(self, table: str) -> str:
        rows = len(self.tables.need(table))
        return gate_rows.gate_hash(self.tables.hashes[table], rows, self.use_case.data.unit_by)

    @property
    def gate(self) -> JudgedRows:
        """The gate set in its seeded order."""
        return JudgedRows(gate_rows.seeded(self.tables.need("gate")), self.gate_hash)

    @property
    def traffic(self) -> JudgedRows:
        """The replayed traffic in its own order, on which caching is judged."""
        rows = self.tables.need("traffic")
        is_scored = expected_answers.are_known(self.use_case, rows)
        return JudgedRows(rows, self._set_hash("traffic"), is_replayed=True, is_scored=is_scored)

    @property
    def has_times_of_its_own(self) -> bool:
        """Whether traffic says when requests came without being told where (an endpoint's log does)."""
        traffic = self.tables.get("traffic")
        return traffic is not None and TIME in traffic and self.use_case.data.time_column is None

    @property
    def judged_beside_traffic(self) -> JudgedRows | None:
        """The gate set where traffic is replayed whose answers nobody can score: quality is judged on it."""
        has_traffic = self.tables.get("traffic") is not None
        return self.gate if has_traffic and not self.traffic.is_scored else None

    def judged_rows(self, stage: str) -> JudgedRows:
        """What a stage is judged on: the gate set, but for `cache`, whose worth is in the repetition of traffic."""
        return self.traffic if stage == "cache" else self.gate

    def test_rows(self) -> pd.DataFrame | None:
        """The untouched rows the winner is confirmed on, a seeded sample where there are more than `confirm_rows`."""
        rows = self.tables.get("test")
        if rows is None:
            return None
        return gate_rows.first_units(gate_rows.seeded(rows), self.use_case.confirm_rows)

    @cached_property
    def repeat_share(self) -> float | None:
        """Share of the replayed traffic whose text came before; None without traffic."""
        traffic = self.tables.get("traffic")
        return None if traffic is None else float(traffic["text"].duplicated().mean())

    @property
    def units_in_words(self) -> str:
        """What counts as one gate example where that is a rule of ours, with its price; empty elsewhere."""
        data, gate = self.use_case.data, self.tables.need("gate")
        if not data.counts_groups:
            return ""
        return (
            f"{len(gate):,} gate rows are {gate_rows.unit_count(gate):,} examples: rows that share {data.split_by} "
            "count once (data.split_by); data.unit_by: null with data.rows_are_units_because counts every row"
        )

    def counts(self) -> dict[str, int]:
        """Rows of every table, 0 where there is none."""
        return {name: self.tables.rows(name) for name in TABLES}

    def data_sets(self, *names: str) -> list[DataSet]:
        """These tables, all of the use case's without names, as the record shows them."""
        paths, hashes = self.use_case.data.model_dump(), self.tables.hashes
        return [DataSet(name, hashes[name], paths[name], self.tables.written_rows(name)) for name in names or hashes]
