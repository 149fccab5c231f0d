"""Starting an endpoint that stays: written down first, in a session of its own, at the first free port.

It decides neither which version nor for how long (see `deploying.py`, and `infra/champions.py` for `make up`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
from filelock import FileLock

from leastwise.engines import leftovers, processes
from leastwise.engines.processes import StartError
from leastwise.engines.started import StartedProcess
from leastwise.errors import BadInput
from leastwise.record.client import tracking_uri
from leastwise.record.published.moves import CHAMPION
from leastwise.record.published.pin import Pin
from leastwise.record.registry import Registry
from leastwise.serving.deployed import entries, process
from leastwise.serving.deployed.entries import Entry
from leastwise.serving.server import check_settings, listening
from leastwise.serving.settings import EndpointSettings
from leastwise.serving.worker import Work
from leastwise.stores import storage

PORTS_TRIED = 100
STARTED_WITHIN_S = 120.0  # beside the time a version may take to open


@dataclass(frozen=True)
class Wanted:
    """An endpoint that is to run: a version of a registered model and the run that measured it. `pin`: where it answers
    whatever the champion is; `opening`: as `leastwise.serving.worker.Work` has it, empty for the usual one.
    """

    name: str
    version: str
    run_id: str
    settings: EndpointSettings
    mask: tuple[str, ...] = ()
    pin: Pin | None = None
    opening: str = ""
    stays: bool = True


@dataclass(frozen=True)
class Started:
    """An endpoint that runs, and whether it was started just now."""

    entry: Entry
    is_new: bool


def pinned(registry: Registry, version: str) -> Pin:
    """A version that is to answer until somebody moves the alias champion from where it is now."""
    number = max((move.number for move in registry.log()), default=0)
    return Pin(version=version, champion=registry.aliases().get(CHAMPION, ""), move=number)


def ensure(wanted: Wanted) -> Started:
    """The endpoint of this version: the one that runs, or a new one, where it was before if that port is free.

    BadInput where it cannot be started. It does not answer yet: see `wait_for`.
    """
    check_settings(wanted.settings)
    with FileLock(entries.lock_of(wanted.name)):
        known = entries.of(wanted.name, wanted.version)
        if known and known.living():
            if known.run_id != wanted.run_id:
                raise BadInput(
                    f"{known.url}: an endpoint of version {known.version} in another registry runs there; end it "
                    "(`python -m infra.local down`), or keep the state of that registry elsewhere (LEASTWISE_HOME)"
                )
            return Started(known, False)
        port = known.port if known else wanted.settings.port
        with _listening_from(wanted.settings, port) as bound:
            return Started(_start(wanted, bound), True)


def wait_for(entry: Entry, timeout_s: float) -> None:
    """Until it answers; else it is ended and forgotten: BadInput for what a person can put right, StartError else."""
    try:
        processes.wait_until_ready(
            f"the endpoint of {entry.name}",
            lambda: CHAMPION in entry.serves(),
            lambda: None if entry.living() else "ended before it answered",
            entry.log,
            timeout_s + STARTED_WITHIN_S,
            poll_s=0.2,
        )
    except StartError as error:
        entries.end(entry)
        last = (entry.log.read_text(errors="replace").strip().splitlines() or [str(error)])[-1]
        raise StartError(f"{last} (the whole of it is in {entry.log})") from error
    except BaseException:  # nobody knows whether it will ever answer
        entries.end(entry)
        raise


def _start(wanted: Wanted, bound: socket.socket) -> Entry:
    host, port = bound.getsockname()[:2]
    entry = Entry(
        name=wanted.name,
        version=wanted.version,
        run_id=wanted.run_id,
        pin=wanted.pin,
        host=host,
        port=port,
        mark=uuid.uuid4().hex,
        load_key=secrets.token_urlsafe(24),
        stays=wanted.stays,
    )
    entries.write(entry)
    work = Work(
        name=wanted.name,
        mask=wanted.mask,
        settings=wanted.settings.model_copy(update={"port": port}),
        socket=bound.fileno(),
        pin=wanted.pin,
        load_key=entry.load_key,
    )
    work = work.model_copy(update={"opening": wanted.opening}) if wanted.opening else work
    command = [sys.executable, "-m", "leastwise.serving.deployed.process"]
    child = processes.start(command, entry.log, _environment(entry, work), own_session=True, pass_fds=(work.socket,))
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended at once: whoever waits for it says why
        entry = entry.model_copy(update={"process": StartedProcess.of(entry.mark, child)})
        entries.write(entry)
    return entry


def _environment(entry: Entry, work: Work) -> dict[str, str]:
    """Of the process: it finds the same state and registry and, where it stays, outlives the command that starts it."""
    kept = {name: value for name, value in os.environ.items() if name != leftovers.MARK or not entry.stays}
    own = {process.VARIABLE: work.model_dump_json(), entries.MARK: entry.mark}
    own[process.PARENT] = "" if entry.stays else str(os.getpid())
    return kept | own | {"LEASTWISE_HOME": str(storage.home()), "MLFLOW_TRACKING_URI": tracking_uri()}


@contextlib.contextmanager
def _listening_from(settings: EndpointSettings, port: int) -> Iterator[socket.socket]:
    """A socket at this port, else at the next that is free; BadInput where there is none at this address."""
    tried = [*range(port, min(port + PORTS_TRIED, 65536)), 0] if port else [0]
    with contextlib.ExitStack() as stack:
        for each in tried:
            try:
                bound = stack.enter_context(listening(settings.model_copy(update={"port": each})))
                break
            except BadInput:
                if each == tried[-1]:
                    raise
        yield bound
