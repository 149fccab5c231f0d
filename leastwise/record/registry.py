"""The MLflow registry: versions of a use case's candidates, who is champion and challenger, and the log of every move.

It judges nothing: whether a candidate deserves a move is decided by who calls. The log is written ahead: an entry (a
run with `leastwise.kind=promotion`, never changed again but for its status and for how the version then started at an
endpoint) stands in MLflow before its alias moves and is FINISHED after; a move that a crash cut short is finished by
the next call. MLflow offers no compare-and-set, so whoever registers or moves takes a turn, of all who share a state
(`leastwise.stores.shared`); machines that share a registry alone are not kept apart.
"""

from __future__ import annotations

import getpass
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.record.client import every_run, experiment_id, find_experiment, shown_uri
from leastwise.record.published.aliases import aliases_of, version_at
from leastwise.record.published.moves import (
    AFTER,
    ALIAS,
    BEFORE,
    CHALLENGER,
    CHAMPION,
    EVENT,
    NUMBER,
    PREDECESSOR,
    STARTED,
    Event,
    Move,
    champions,
    move_of,
)
from leastwise.record.run import (
    CANDIDATE,
    FINISHED,
    KIND,
    MODEL_ID,
    MOST_TAG_CHARACTERS,
    NOTE,
    REASON,
    RUN_NAME,
    STAGE,
    USE_CASE,
    VERDICT,
    is_tag,
)
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import UpkeepRun
from leastwise.redaction import redacted
from leastwise.run_id import RunId
from leastwise.stores.shared.state import turns

WHAT_IT_IS = "Candidates of the use case {}. Alias champion: in production; predecessor: what a rollback goes back to."

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Registered:
    """A version of a registered model: the candidate a run measured."""

    version: str
    run_id: RunId
    candidate: Candidate


@dataclass(frozen=True)
class Registry:
    """The registered model of one use case, whose name it has."""

    client: MlflowClient
    use_case: str

    def version_of(self, run: StageRun) -> str | None:
        """The version of the candidate that a run logged; None where it is not registered."""
        versions = self.client.search_model_versions(f"name = '{self.use_case}' and run_id = '{run.id}'")
        return str(versions[0].version) if versions else None

    def register(self, run: StageRun) -> str:
        """The version of the candidate that a run logged, made where there is none; registering moves no alias, and
        whether it can be served is seen to by `leastwise.serving.registering`.
        """
        model_id = run.tag(MODEL_ID)
        if not model_id:
            raise BadInput(f"run {run.id}: has logged no candidate; name the run of a stage that was measured")
        with self._turn():
            self._create_model()
            known = self.version_of(run)
            if known:
                return known
            tags = {name: run.tag(name) for name in (CANDIDATE, STAGE, VERDICT)}
            words = f"{run.tag(RUN_NAME)}: {run.tag(REASON)}"[:MOST_TAG_CHARACTERS]  # what the page of versions shows
            make = partial(self.client.create_model_version, description=words, model_id=model_id)
            return str(make(self.use_case, f"models:/{model_id}", run.id, tags).version)

    def champion(self) -> Registered | None:
        """The candidate in production, or None before the first promotion."""
        return self._holder(CHAMPION)

    def challenger(self) -> Registered | None:
        """The candidate that last challenged the champion, or None."""
        return self._holder(CHALLENGER)

    def holder(self, alias: str) -> Registered | None:
        """The candidate an alias names now, or None; unlike the above it finishes no move: for who only reads."""
        version = self._version_at(alias)
        return self.version(version) if version else None

    def aliases(self) -> dict[str, str]:
        """The version of each alias, as they stand; nothing is finished or changed. Empty where there is no model."""
        return aliases_of(self.client, self.use_case)

    def note_start(self, version: str, words: str) -> None:
        """Note at a version, and at the log's latest move to it, how it started at an endpoint; no alias moves."""
        said = redacted(words)[:MOST_TAG_CHARACTERS]
        self.client.set_model_version_tag(self.use_case, version, STARTED, said)
        moves = [move for move in self.log() if move.after == version]
        if moves:
            self.client.set_tag(moves[-1].run_id, STARTED, said)

    def version(self, version: str) -> Registered:
        """One version."""
        run_id = str(self.client.get_model_version(self.use_case, version).run_id)
        return Registered(version, RunId(run_id), StageRun.read(self.client, run_id).candidate())

    def run_of(self, version: str) -> str | None:
        """The run that measured a version; None where there is no such version."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version(self.use_case, version).run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def training_data(self, registered: Registered) -> str | None:
        """The training data of a candidate that a retraining made; None for one that came from a climb."""
        run = UpkeepRun.read(self.client, registered.run_id)
        return run.use_case().data.train if run.kind == "retrain" else None

    def challenge(self, version: str, reason: str) -> Move | None:
        """Make a version the challenger; None where it is already."""
        with self._turn():
            return self._move("challenge", version, reason)

    def promote(self, version: str, reason: str) -> Move | None:
        """Make a version the champion: the log first, then the alias; None where it is already."""
        with self._turn():
            return self._move("promote", version, reason)

    def rollback(self, reason: str) -> Move:
        """Make the champion's predecessor champion again; BadInput where the log knows none."""
        with self._turn():
            self._finish()
            lineage = self._lineage()
            if len(lineage) < 2:
                raise BadInput(
                    f"{self.use_case}: the promotion log knows no predecessor of the champion "
                    f"{lineage[-1] if lineage else '(none)'}; promote a run first (python -m flows.promote)"
                )
            moved = self._move("rollback", lineage[-2], reason)
        assert moved is not None, "a predecessor differs from the champion"
        return moved

    def predecessor(self) -> str:
        """The version that was champion before the present one, empty where the log knows none; nothing is changed."""
        return "".join(self._lineage()[-2:-1])

    def _lineage(self) -> list[str]:
        return champions(self.log(), self._version_at(CHAMPION))

    def log(self) -> list[Move]:
        """Every move of the use case's aliases, oldest first."""
        where = find_experiment(self.client, self.use_case)
        if where is None:
            return []
        runs = every_run(self.client, where, is_tag(KIND, "promotion"))
        return sorted((move_of(run) for run in runs), key=lambda move: move.number)

    def finish_interrupted(self) -> list[Move]:
        """Move the aliases of log entries that a crash left open; gives back those it finished.

        In a turn of its own: an entry that is open now may be moved, and another after it, before this one gets there.
        """
        if all(move.finished for move in self.log()):
            return []
        with self._turn():
            return self._finish()

    def _finish(self) -> list[Move]:
        open_moves = [move for move in self.log() if not move.finished]
        for move in open_moves:
            self._apply(move)
        return open_moves

    @property
    def _name(self) -> str:
        return f"registry-{self.use_case}"

    def _turn(self) -> AbstractContextManager[None]:
        return turns().turn(self._name)

    def _move(self, event: Event, version: str, reason: str) -> Move | None:
        self._finish()
        # Raises for a version that is not there, before anything is logged.
        self.client.get_model_version(self.use_case, version)
        before = self._version_at(ALIAS[event])
        if before == version:
            return None
        move = self._write(event, before, version, reason)
        self._apply(move)
        return move

    def _write(self, event: Event, before: str, after: str, reason: str) -> Move:
        """One entry, whole at once: a run is created together with its tags."""
        turns().require(self._name)
        number = max((move.number for move in self.log()), default=0) + 1  # somebody may have deleted an entry
        words = f"{ALIAS[event]} from version {before or 'none'} to {after}. {reason}"
        tags = {
            KIND: "promotion",
            EVENT: event,
            NUMBER: str(number),
            BEFORE: before,
            AFTER: after,
            REASON: reason[:MOST_TAG_CHARACTERS],
            "mlflow.user": getpass.getuser(),
            NOTE: f"**{event}**: {words}"[:MOST_TAG_CHARACTERS],
        }
        name = f"{event} · {ALIAS[event]} {before or 'none'} → {after}"
        return move_of(self.client.create_run(experiment_id(self.client, self.use_case), tags=tags, run_name=name))

    def _apply(self, move: Move) -> None:
        """Move the alias and close the entry; doing it twice changes nothing."""
        turns().require(self._name)
        self.client.set_registered_model_alias(self.use_case, ALIAS[move.event], move.after)
        if move.event == "promote" and self._version_at(CHALLENGER) == move.after:
            self.client.delete_registered_model_alias(self.use_case, CHALLENGER)
        if ALIAS[move.event] == CHAMPION:
            self._show_predecessor()
        self.client.set_terminated(move.run_id, FINISHED)

    def _show_predecessor(self) -> None:
        before = self.predecessor()
        if before and self.run_of(before):
            self.client.set_registered_model_alias(self.use_case, PREDECESSOR, before)
        elif self._version_at(PREDECESSOR):
            self.client.delete_registered_model_alias(self.use_case, PREDECESSOR)

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(
                self.use_case, {USE_CASE: self.use_case}, WHAT_IT_IS.format(self.use_case)
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version_at(self, alias: str) -> str:
        """The version an alias names, empty where it is not set."""
        return version_at(self.client, self.use_case, alias)

    def _holder(self, alias: str) -> Registered | None:
        self.finish_interrupted()
        return self.holder(alias)


MODEL_URI = re.compile(r"^models:/(?P<name>[^/@\s]+)(?:@(?P<alias>[^/@\s]+)|/(?P<version>[0-9]+))$")


def registered_at(client: MlflowClient, uri: str) -> Registered:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names; BadInput where there is none."""
    from mlflow.exceptions import MlflowException

    parts = MODEL_URI.match(uri)
    if parts is None:
        raise BadInput(f"{uri}: names no registered model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    registry, version = Registry(client, parts["name"]), parts["version"]
    try:
        found = registry.version(version) if version else registry.holder(parts["alias"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = None
    if found is None:
        raise BadInput(f"{uri}: there is no such version of a registered model in {shown_uri()}; promote a run first")
    return found
