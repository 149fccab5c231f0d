"""The MLflow registry: versions of a use case's candidates, who is champion and challenger, and the log of every move.

It judges nothing: whether a candidate deserves a move is decided by who calls. The log is written ahead: an entry (a run
with `leastwise.kind=promotion`, never changed again but for its status) stands in MLflow before its alias moves and is
FINISHED after; a move that a crash cut short is finished by the next call. MLflow offers no compare-and-set, so two
processes that move one use case's aliases at the same moment are not kept apart.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.record import run_record, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
Event = Literal["challenge", "promote", "rollback"]
_ALIAS: dict[str, str] = {"challenge": CHALLENGER, "promote": CHAMPION, "rollback": CHAMPION}


@dataclass(frozen=True)
class Registered:
    """A version of a registered model: the candidate a run measured."""

    version: str
    run_id: str
    candidate: Candidate


@dataclass(frozen=True)
class Move:
    """One entry of the promotion log: an alias moves from `before` (empty: it was not set) to `after`."""

    run_id: str
    number: int
    event: Event
    before: str
    after: str
    reason: str
    finished: bool


def register(client: MlflowClient, use_case: str, run_id: str) -> str:
    """The version of the candidate that a run logged, made where there is none; registering moves no alias."""
    run = client.get_run(run_id)
    model_id = run.data.tags.get("leastwise.model_id")
    if not model_id:
        raise BadInput(f"run {run_id}: has logged no candidate; name the run of a stage that was measured")
    _registered_model(client, use_case)
    known = client.search_model_versions(f"name = '{use_case}' and run_id = '{run_id}'")
    if known:
        return str(known[0].version)
    tags = {
        name: run.data.tags.get(name, "")
        for name in ("leastwise.ladder.candidate", "leastwise.stage", "leastwise.verdict")
    }
    made = client.create_model_version(
        use_case, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags
    )
    return str(made.version)


def champion(client: MlflowClient, use_case: str) -> Registered | None:
    """The candidate in production, or None before the first promotion."""
    return _holder(client, use_case, CHAMPION)


def challenger(client: MlflowClient, use_case: str) -> Registered | None:
    """The candidate that last challenged the champion, or None."""
    return _holder(client, use_case, CHALLENGER)


def registered(client: MlflowClient, use_case: str, version: str) -> Registered:
    """One version of a use case's registered model."""
    run_id = str(client.get_model_version(use_case, version).run_id)
    return Registered(version, run_id, run_record.load_candidate(client, run_id))


def challenge(client: MlflowClient, use_case: str, version: str, reason: str) -> Move | None:
    """Make a version the challenger; None where it is already."""
    return _move(client, use_case, "challenge", version, reason)


def promote(client: MlflowClient, use_case: str, version: str, reason: str) -> Move | None:
    """Make a version the champion: the log first, then the alias; None where it is already."""
    return _move(client, use_case, "promote", version, reason)


def rollback(client: MlflowClient, use_case: str, reason: str) -> Move:
    """Make the champion's predecessor champion again; BadInput where the log knows none."""
    finish_interrupted(client, use_case)
    lineage = champions(log(client, use_case), _version_at(client, use_case, CHAMPION))
    if len(lineage) < 2:
        raise BadInput(
            f"{use_case}: the promotion log knows no predecessor of the champion {lineage[-1] if lineage else '(none)'}; "
            "promote a run first (python -m flows.promote)"
        )
    moved = _move(client, use_case, "rollback", lineage[-2], reason)
    assert moved is not None, "a predecessor differs from the champion"
    return moved


def log(client: MlflowClient, use_case: str) -> list[Move]:
    """Every move of the use case's aliases, oldest first."""
    found = client.get_experiment_by_name(use_case)
    if found is None:
        return []
    runs: list[Run] = []
    token = None
    while token is None or token:
        page = client.search_runs(
            [found.experiment_id], "tags.`leastwise.kind` = 'promotion'", max_results=1000, page_token=token
        )
        runs, token = [*runs, *page], page.token or ""
    return sorted((_read(run) for run in runs), key=lambda move: move.number)


def champions(moves: Sequence[Move], now: str = "") -> list[str]:
    """The line of champions as versions, the present one last: promotions add to it, a rollback takes the last off.

    A champion that somebody set by hand is not in the log; it takes its place in the line by what the next entry says
    it replaced, and the present one by `now`.
    """
    line: list[str] = []
    for move in moves:
        if _ALIAS[move.event] != CHAMPION:
            continue
        line = _reaching(line, move.before)
        line = line[:-1] if move.event == "rollback" else [*line, move.after]
    return _reaching(line, now)


def finish_interrupted(client: MlflowClient, use_case: str) -> list[Move]:
    """Move the aliases of log entries that a crash left open; gives back those it finished."""
    open_moves = [move for move in log(client, use_case) if not move.finished]
    for move in open_moves:
        _apply(client, use_case, move)
    return open_moves


def _reaching(line: list[str], version: str) -> list[str]:
    return line if not version or (line and line[-1] == version) else [*line, version]


def _move(client: MlflowClient, use_case: str, event: Event, version: str, reason: str) -> Move | None:
    finish_interrupted(client, use_case)
    client.get_model_version(use_case, version)  # raises for a version that is not there, before anything is logged
    before = _version_at(client, use_case, _ALIAS[event])
    if before == version:
        return None
    move = _write(client, use_case, event, before, version, reason)
    _apply(client, use_case, move)
    return move


def _write(client: MlflowClient, use_case: str, event: Event, before: str, after: str, reason: str) -> Move:
    """One entry, whole at once: a run is created together with its tags."""
    number = len(log(client, use_case)) + 1
    tags = {
        "leastwise.kind": "promotion",
        "leastwise.event": event,
        "leastwise.number": str(number),
        "leastwise.before": before,
        "leastwise.after": after,
        "leastwise.reason": reason[:5000],
        "mlflow.user": getpass.getuser(),
        run_record.NOTE: f"**{event}**: {_ALIAS[event]} from version {before or 'none'} to {after}. {reason}"[:5000],
    }
    name = f"{event} · {_ALIAS[event]} {before or 'none'} → {after}"
    run = client.create_run(tracking.experiment(client, use_case), tags=tags, run_name=name)
    return _read(run)


def _apply(client: MlflowClient, use_case: str, move: Move) -> None:
    """Move the alias and close the entry; doing it twice changes nothing."""
    client.set_registered_model_alias(use_case, _ALIAS[move.event], move.after)
    if move.event == "promote" and _version_at(client, use_case, CHALLENGER) == move.after:
        client.delete_registered_model_alias(use_case, CHALLENGER)
    client.set_terminated(move.run_id, "FINISHED")


def _read(run: Run) -> Move:
    tags = run.data.tags
    return Move(
        run_id=str(run.info.run_id),
        number=int(tags["leastwise.number"]),
        event=tags["leastwise.event"],
        before=tags["leastwise.before"],
        after=tags["leastwise.after"],
        reason=tags["leastwise.reason"],
        finished=run.info.status == "FINISHED",
    )


def _registered_model(client: MlflowClient, use_case: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(use_case, tags={"leastwise.use_case": use_case})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_at(client: MlflowClient, use_case: str, alias: str) -> str:
    """The version an alias names, empty where it is not set."""
    found = _at(client, use_case, alias)
    return str(found.version) if found else ""


def _at(client: MlflowClient, use_case: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(use_case, alias)
    except MlflowException as error:
        # Measured on 3.17.2: an alias that is not set is INVALID_PARAMETER_VALUE, a model that is not there the other.
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def _holder(client: MlflowClient, use_case: str, alias: str) -> Registered | None:
    finish_interrupted(client, use_case)
    found = _at(client, use_case, alias)
    if found is None:
        return None
    return registered(client, use_case, str(found.version))
