"""MLflow's tracking server: where it is, an experiment by name, and who is at work on a run.

It says nothing of what a run holds (see `leastwise.record.run`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import AtWork, BadInput
from leastwise.redaction import without_secrets
from leastwise.stores import lease, storage
from leastwise.stores.shared.owners import GIVEN_UP_S
from leastwise.stores.shared.state import turns
from leastwise.stores.shared.turns import Turns
from leastwise.stores.sqlite_file import check_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

AT_WORK = "leastwise.at_work."  # with the owner of a lease: who works on a run, and when it was last heard of
HEARD_S = 30.0
TRIES, MOST_WAIT_S, AGAIN_S = 4, 1.0, 2.0
AWAY_S = 180.0  # how long a server that was there may be away; MLflow's own client takes it for about as long
MOST_RUNS_A_PAGE = 1000
SERVERS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a database under the state directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.home() / 'mlflow.db'}"


def shown_uri() -> str:
    """The same as links and lines may show it."""
    return without_secrets(tracking_uri())


def connect(patience_s: float = 0.0) -> MlflowClient:
    """A client of the tracking server; BadInput where it cannot be reached within `patience_s`, or its local database
    cannot be used.
    """
    uri = tracking_uri()
    parsed = urllib.parse.urlparse(uri)
    scheme = parsed.scheme.partition("+")[0]
    if scheme in SERVERS:
        _check_reachable(uri, parsed, SERVERS[scheme], patience_s)
    elif scheme == "sqlite":
        file = Path(uri.partition("///")[2])
        storage.check_writable(file.parent)
        file.parent.mkdir(parents=True, exist_ok=True)  # SQLite makes no folder
        check_whole(file)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def _check_reachable(uri: str, parsed: urllib.parse.ParseResult, usual_port: int, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while error := _unreachable(parsed, usual_port):
        if time.monotonic() < until:
            time.sleep(AGAIN_S)
            continue
        raise BadInput(
            f"MLFLOW_TRACKING_URI: the MLflow server {without_secrets(uri)} cannot be reached ({error}); start it with "
            "`make up`, or unset the variable to use a local database"
        )


def _unreachable(parsed: urllib.parse.ParseResult, usual_port: int) -> OSError | None:
    try:
        socket.create_connection((parsed.hostname or "", parsed.port or usual_port), timeout=5).close()
    except OSError as error:
        return error
    return None


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the experiment, made where it does not exist; BadInput where it was deleted."""
    existing = find_experiment(client, name)
    if existing:
        return existing
    try:
        return str(client.create_experiment(name, artifact_location=_location(name)))
    except Exception:
        made_meanwhile = find_experiment(client, name)
        if made_meanwhile is None:
            raise
        return made_meanwhile


def _location(name: str) -> str | None:
    """Where a database's runs keep their files: a server knows it; else under MLFLOW_DEFAULT_ARTIFACT_ROOT (a path or
    `s3://`), or in the state directory, never in the current folder as MLflow would.
    """
    if tracking_uri().startswith("http"):
        return None
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "")
    return (
        f"{root.rstrip('/')}/{name}"
        if "://" in root
        else (Path(root or storage.home() / "mlartifacts") / name).absolute().as_uri()
    )


def files_location(client: MlflowClient, name: str) -> str:
    """Where the files of an experiment lie, or those of a new one would."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None and (own := _location(name)) is not None:
        return own
    return str((experiment or client.get_experiment("0")).artifact_location)


def artifact_root(name: str) -> str:
    """Where a tracking server keeps the files of an experiment, or would keep those of a new one."""
    client = connect()
    experiment = client.get_experiment_by_name(name) or client.get_experiment("0")
    return str(experiment.artifact_location)


def find_experiment(client: MlflowClient, name: str) -> str | None:
    """Id of the experiment of that name, or None; BadInput where it was deleted: it can neither be read nor written."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        number, where = experiment.experiment_id, without_secrets(tracking_uri())
        raise BadInput(
            f"MLflow experiment {name} (id {number} in {where}) was deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {number}`, or remove it for good with "
            f"`mlflow gc --experiment-ids {number}`, each with MLFLOW_TRACKING_URI set to that address"
        )
    return str(experiment.experiment_id)


def every_run(
    client: MlflowClient, where: str, query: str = "", order_by: Sequence[str] = (), view: int = 1
) -> Iterator[Run]:
    """Every run of an experiment that meets a condition, page by page, however many there are. `view`: MLflow's, by
    default those that nobody deleted.
    """
    token: str | None = None
    while token is None or token:
        page = client.search_runs([where], query, view, MOST_RUNS_A_PAGE, list(order_by), token)
        yield from page
        token = page.token or ""


def take_up(
    client: MlflowClient, what: str, key: str, unfinished: Callable[[], Sequence[Run]], new: Callable[[], Run]
) -> tuple[Run, bool]:
    """The unfinished run, or a new one, for this process alone, and whether it was there; held until `leave` or the
    process ends.

    AtWork where another process is at work on `what` under this key, on whichever machine. Where machines share their
    state, it leases the work there. Else each writes its sign before it looks for others', so that of two that come at
    once at least one sees the other; who sees one steps back and looks again.
    """
    if (shared := turns()).leases:
        return _leased(shared, what, f"{what}:{key}", unfinished, new)
    mine = lease.sign(storage.home() / lease.FOLDER)
    for _ in range(TRIES):
        found = list(unfinished())
        _refuse_others(what, found, mine)
        run = found[0] if found else new()
        _write_sign(client, run.info.run_id, mine)
        if not any(_others(each, mine) for each in unfinished()):
            _keep_up(client, run, mine)
            return run, bool(found)
        leave(client, run.info.run_id)
        if not found:
            client.delete_run(run.info.run_id)
        time.sleep(random.uniform(0.1, MOST_WAIT_S))
    _refuse_others(what, list(unfinished()), mine)
    raise AtWork(f"{what}: others start it at this very moment; run it again in a minute")


def _leased(
    shared: Turns, what: str, name: str, unfinished: Callable[[], Sequence[Run]], new: Callable[[], Run]
) -> tuple[Run, bool]:
    if holder := shared.take(name):
        raise AtWork(
            f"{what} is at work already: {holder.in_words}, heard of {holder.heard_s_ago:.0f} s ago in the shared "
            f"state. Wait until it has ended, or end it; if it was killed on another machine, this one may go on "
            f"{GIVEN_UP_S} s after its last sign"
        )
    try:
        found = list(unfinished())
        run = found[0] if found else new()
    except BaseException:
        shared.give_back(name)
        raise
    _leases[run.info.run_id] = name
    return run, bool(found)


def leave(client: MlflowClient, run_id: str) -> None:
    """This process is no longer at work on a run."""
    if name := _leases.pop(run_id, None):
        turns().give_back(name)
        return
    _kept_up.pop(run_id, None)
    with contextlib.suppress(Exception):  # it may have been taken away already, or the run deleted
        client.delete_tag(run_id, AT_WORK + lease.sign(storage.home() / lease.FOLDER).owner)


def _refuse_others(what: str, runs: Sequence[Run], mine: lease.Sign) -> None:
    for run in runs:
        for other, heard_unix_s in _others(run, mine):
            raise AtWork(
                f"{what} is at work already: {other.in_words}, heard of {max(0, time.time() - heard_unix_s):.0f} s ago "
                f"(MLflow run {run.info.run_id}). Wait until it has ended, or end it; if it was killed on another "
                f"machine, this one may go on {lease.STALE_S:.0f} s after its last sign"
            )


def _others(run: Run, mine: lease.Sign) -> list[tuple[lease.Sign, float]]:
    """Who else is at work on a run and lives, and when each was heard of."""
    values = [value for name, value in run.data.tags.items() if name.startswith(AT_WORK)]
    signs = [
        (sign, float(json.loads(value).get("heard_unix_s", 0.0)))
        for value in values
        if (sign := lease.Sign.parse(value))
    ]
    return [(sign, heard) for sign, heard in signs if sign.owner != mine.owner and sign.is_alive(heard)]


def _write_sign(client: MlflowClient, run_id: str, sign: lease.Sign) -> None:
    client.set_tag(run_id, AT_WORK + sign.owner, json.dumps({**vars(sign), "heard_unix_s": time.time()}))


_leases: dict[str, str] = {}  # of runs, where machines share their state
_kept_up: dict[str, tuple[MlflowClient, lease.Sign]] = {}


def _keep_up(client: MlflowClient, run: Run, sign: lease.Sign) -> None:
    for name in run.data.tags:
        if name.startswith(AT_WORK) and name != AT_WORK + sign.owner:
            with contextlib.suppress(Exception):  # who is dead needs no sign; another may have taken it away
                client.delete_tag(run.info.run_id, name)
    _kept_up[run.info.run_id] = client, sign
    _renewer(os.getpid())


@lru_cache(maxsize=1)
def _renewer(_process: int) -> None:
    threading.Thread(target=_renew, name="runs at work", daemon=True).start()


def _renew() -> None:
    while True:
        time.sleep(HEARD_S)
        for run_id, (client, sign) in list(_kept_up.items()):
            with contextlib.suppress(Exception):  # a server that is away for a moment; the next sign may reach it
                if run_id in _kept_up:  # not left meanwhile
                    _write_sign(client, run_id, sign)
