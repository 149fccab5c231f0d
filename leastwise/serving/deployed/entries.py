"""The endpoints that were left running, one file each under the state directory: found again, told from others, ended.

An entry is written before its process is started, with a mark that the process carries: so one that was started by
whoever was killed at that moment is found too. It starts nothing (see `starting.py`).
"""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPException
from pathlib import Path

import psutil
from pydantic import Field, ValidationError

from leastwise.engines import processes
from leastwise.engines.started import StartedProcess
from leastwise.part import Part
from leastwise.record.published.pin import Pin
from leastwise.stores import storage

MARK = "LEASTWISE_DEPLOYED_MARK"
FOLDER, STOP_S = "deployed", 40.0  # more than the time that requests in flight get


class Entry(Part):
    """An endpoint on this machine."""

    name: str = Field(description="The registered model, which has the use case's name.")
    version: str = Field(description="The version it was started for.")
    run_id: str = Field(description="The run that measured it: a version of that number elsewhere has another.")
    pin: Pin | None = Field(None, description="Where it answers with its version whatever the champion is; until when.")
    host: str
    port: int
    mark: str = Field(description="In the environment of its process.")
    load_key: str = Field("", description="Who shows it asks to measure the endpoint.")
    stays: bool = Field(True, description="Whether it is to stay; else it was started to be measured, and is ended.")
    process: StartedProcess | None = None

    @property
    def url(self) -> str:
        """Where it answers on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - an address to ask
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def log(self) -> Path:
        """What its process says; its workers have logs of their own beside it."""
        return storage.home() / "logs" / f"deployed-{self.name}-{self.version}.log"

    def living(self) -> psutil.Process | None:
        """Its process; None where it has ended, or was never started."""
        if self.process:
            return self.process.process()
        return next(iter(processes.marked(MARK, self.mark)), None)

    def serves(self) -> dict[str, str]:
        """The version it answers each alias with; empty where it does not answer."""
        with (
            contextlib.suppress(OSError, HTTPException, ValueError, KeyError, TypeError),
            processes.opened(f"{self.url}/health") as reply,
        ):
            said = json.load(reply)
            return dict(said["versions"]) if said["name"] == self.name else {}
        return {}


def write(entry: Entry) -> None:
    """Write it down, in place of what was written of this version before."""
    storage.write_bytes(_file(entry), entry.model_dump_json(indent=1).encode())


def every(name: str | None = None) -> list[Entry]:
    """What is written down, of one use case or of all, living or not; a file that is none is left alone."""
    found = []
    for file in sorted((storage.home() / FOLDER).glob("*.json")):
        with contextlib.suppress(ValidationError, FileNotFoundError):
            entry = Entry.model_validate_json(file.read_bytes())
            found += [entry] if name in (None, entry.name) else []
    return found


def living(name: str | None = None) -> list[Entry]:
    """The endpoints that run."""
    return [entry for entry in every(name) if entry.living()]


def of(name: str, version: str) -> Entry | None:
    """What is written down of a version."""
    return next((entry for entry in every(name) if entry.version == version), None)


def end(entry: Entry) -> None:
    """End it, what it has in flight answered first, and forget it."""
    process = entry.living()
    if process:
        processes.end(process, STOP_S)
    _file(entry).unlink(missing_ok=True)


def lock_of(name: str) -> Path:
    """Held by whoever starts an endpoint of a use case."""
    folder = storage.home() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"


def _file(entry: Entry) -> Path:
    return storage.home() / FOLDER / f"{entry.name}-v{entry.version}.json"
