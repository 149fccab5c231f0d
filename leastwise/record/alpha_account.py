"""The alpha account of gate sets, kept in MLflow: what each question has drawn, and on which rows.

How much one draws, and what that guarantees, is said in `leastwise.evidence.alpha_account`. Two experiments hold it: a
run for each draw, and a run for each set of rows that was ever drawn on (hashes of its texts, under the key of their
content), so that an account follows the rows into any file.

**Draws at the same moment.** A draw is written down first, then every draw is read again, and its number is one more
than the others on rows of its own, settled or not. Of two draws the one that reads later sees the other, whatever their
clocks say: so at least one of them counts the other, on one machine or several, as long as the server shows what was
written to it. Where nobody reads between, both count each other, which costs alpha and never gives it away. A turn, of
all who share a state, saves them that price. A draw that a crash cut short is settled by whoever
asks the same question again, and counts for everybody else until then.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leastwise.content import content_key
from leastwise.evidence.alpha_account import RowHashes, share_of_alpha, shares_rows
from leastwise.record.client import every_run, experiment_id, find_experiment
from leastwise.record.run import FINISHED, GATE_HASH, KIND, QUESTION, is_status, is_tag
from leastwise.stores.shared.state import turns

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from leastwise.rows.question import Question

EXPERIMENT, SETS = "leastwise-alpha-accounts", "leastwise-gate-sets"
ROWS, ROWS_FILE = "leastwise.rows", "rows.npy"
ALPHA, NUMBER = "alpha", "number"


@dataclass(frozen=True)
class Draw:
    """One question's draw as it is written; `rows` names its set, empty for a draw of before sets were kept."""

    run: Run

    @property
    def asked(self) -> tuple[str, str]:
        """What was asked of which gate set: one question, however many runs it has."""
        return self.run.data.tags.get(GATE_HASH, ""), self.run.data.tags.get(QUESTION, "")

    @property
    def rows(self) -> str:
        """The key of its set of rows."""
        return str(self.run.data.tags.get(ROWS, ""))

    @property
    def alpha(self) -> float | None:
        """Its share, once it is settled."""
        return self.run.data.metrics.get(ALPHA)

    @property
    def is_deleted(self) -> bool:
        """Whether somebody deleted the run; what it drew stays drawn."""
        return bool(self.run.info.lifecycle_stage == "deleted")


@dataclass(frozen=True)
class AlphaAccount:
    """The accounts of all rows on one tracking server."""

    client: MlflowClient

    def draw(self, question: Question, asked: str, alpha: float) -> float:
        """The share of alpha that `asked` has of the rows of a question, the same one whenever it is asked again."""
        with turns().turn("alpha-account"):
            drawn = self._drawn(question.gate_hash, asked)
            shares = [each.alpha for each in drawn if each.alpha is not None]
            if shares:
                self._adopt(question, drawn)
                return min(shares)  # two machines may have written one question down twice
            mine = next((each for each in drawn if not each.is_deleted), None)
            return self._settle(mine or self._write(question, asked), question, alpha)

    def shares(self, asked: str) -> list[float]:
        """What a question has drawn, of whichever rows: no candidate under it may spend more."""
        where = find_experiment(self.client, EXPERIMENT)
        drawn = every_run(self.client, where, is_tag(QUESTION, asked), view=_view()) if where else ()
        return [alpha for run in drawn if (alpha := Draw(run).alpha) is not None]

    def _drawn(self, gate_hash: str, asked: str) -> list[Draw]:
        where = experiment_id(self.client, EXPERIMENT)
        query = f"{is_tag(GATE_HASH, gate_hash)} and {is_tag(QUESTION, asked)}"
        return [Draw(run) for run in every_run(self.client, where, query, view=_view())]

    def _adopt(self, question: Question, drawn: list[Draw]) -> None:
        """Say which rows a draw of before was on, so that it goes on counting wherever these rows go."""
        for each in drawn:
            if not each.rows and not each.is_deleted:
                self.client.set_tag(each.run.info.run_id, ROWS, self._keep(question.asked_rows))

    def _write(self, question: Question, asked: str) -> Draw:
        """A draw without a share yet; its rows are kept before it is there for anybody to count."""
        tags = {GATE_HASH: question.gate_hash, QUESTION: asked, KIND: "alpha", ROWS: self._keep(question.asked_rows)}
        name = f"draw · gate set {question.gate_hash[:8]}"
        return Draw(self.client.create_run(experiment_id(self.client, EXPERIMENT), tags=tags, run_name=name))

    def _settle(self, mine: Draw, question: Question, alpha: float) -> float:
        """Count every other draw on rows of this one, as they are by now, and write the share down."""
        if not mine.rows:
            self._adopt(question, [mine])
        number = 1 + self._counting(mine, question)
        share, run_id = share_of_alpha(alpha, number), mine.run.info.run_id
        self.client.log_metric(run_id, NUMBER, number)
        self.client.log_metric(run_id, ALPHA, share)
        self.client.set_tag(run_id, "mlflow.runName", f"draw {number} · gate set {question.gate_hash[:8]}")
        self.client.set_terminated(run_id, FINISHED)
        return share

    def _counting(self, mine: Draw, question: Question) -> int:
        """How many other questions were asked of rows of this one."""
        everything = (Draw(run) for run in every_run(self.client, experiment_id(self.client, EXPERIMENT), view=_view()))
        others = [each for each in everything if each.asked != mine.asked]
        shared = {key: self._shares(key, question.asked_rows) for key in {each.rows for each in others} - {""}}
        counted = {each.asked for each in others if shared.get(each.rows)}
        hashes = {gate_hash for gate_hash, _ in counted} | {question.gate_hash}
        old = {each.asked for each in others if not each.rows}
        hashes |= {each for each in {gate_hash for gate_hash, _ in old} - hashes if self._was_asked(question, each)}
        return len(counted | {each for each in old if each[0] in hashes})

    def _was_asked(self, question: Question, gate_hash: str) -> bool:
        """Whether this use case was ever judged on that gate set: then its rows are taken for shared."""
        where = find_experiment(self.client, question.use_case.name)
        query = is_tag(GATE_HASH, gate_hash)
        return bool(where and self.client.search_runs([where], query, max_results=1, run_view_type=_view()))

    def _keep(self, rows: RowHashes) -> str:
        """Keep a set of rows once; gives back its key."""
        key = content_key("rows", rows.tobytes().hex())
        if self._kept(key) is None:
            where = experiment_id(self.client, SETS)
            tags, name = {KIND: "rows", ROWS: key}, f"{rows.size:,} rows · {key[:8]}"
            run_id = self.client.create_run(where, tags=tags, run_name=name).info.run_id
            with tempfile.TemporaryDirectory() as scratch:
                np.save(Path(scratch, ROWS_FILE), rows)
                self.client.log_artifact(run_id, str(Path(scratch, ROWS_FILE)))
            self.client.set_terminated(run_id, FINISHED)
        return key

    def _kept(self, key: str) -> Run | None:
        where = find_experiment(self.client, SETS)
        query = f"{is_tag(ROWS, key)} and {is_status(FINISHED)}"
        return next(every_run(self.client, where, query, view=_view()), None) if where else None

    def _shares(self, key: str, rows: RowHashes) -> bool:
        """Whether a kept set has a row of this one; one that cannot be read is taken for it."""
        run = self._kept(key)
        if run is None:
            return True
        with tempfile.TemporaryDirectory() as scratch:
            theirs = np.load(self.client.download_artifacts(run.info.run_id, ROWS_FILE, scratch))
        return shares_rows(rows, theirs)


def _view() -> int:
    from mlflow.entities import ViewType

    return int(ViewType.ALL)
