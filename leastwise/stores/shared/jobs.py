"""The batch jobs that a provider was given, which are paid whether or not anybody fetches what they bring: noted before
they are waited for, in a file or for every machine, so that another goes on where the one that made them is gone.

It speaks to no provider: a handle is a text of whoever does.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from leastwise.errors import BadInput
from leastwise.stores.shared.connection import Session
from leastwise.stores.shared.turns import Turns
from leastwise.stores.shared.writer import Writer
from leastwise.stores.sqlite_file import open_wal

log = logging.getLogger(__name__)

FILE = "batches.db"
TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, handle TEXT NOT NULL, keys TEXT NOT NULL,
    collected INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""
NOTE = "INSERT INTO jobs (id, target, handle, keys) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO NOTHING"
WAITING = "SELECT id, target, handle, keys FROM jobs WHERE target = %s AND NOT collected ORDER BY id"


@dataclass(frozen=True)
class Job:
    """A job: whom it was given to, what fetches it, and the keys that its answers are to be kept under."""

    id: str
    target: str
    handle: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, row: tuple[object, ...]) -> Job:
        """The job of a row."""
        number, target, handle, keys = cast("tuple[str, str, str, str]", row)
        return cls(number.removeprefix(f"{target}/"), target, handle, tuple(json.loads(keys)))

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The job as a row. Two providers may give one number, so it is known by both; earlier rows have it bare."""
        return f"{self.target}/{self.id}", self.target, self.handle, json.dumps(list(self.keys))


class Jobs(Protocol):
    """Where jobs are noted."""

    def note(self, job: Job) -> None:
        """Remember a job that was made, before it is waited for."""
        ...

    def waiting(self, target: str) -> list[Job]:
        """The jobs of a target that nobody collected yet, whoever made them."""
        ...

    def note_collected(self, target: str, job: str) -> None:
        """Its answers are kept: it need not be looked for again."""
        ...

    def turn(self, target: str) -> AbstractContextManager[None]:
        """Nobody else makes jobs for this target while the block runs."""
        ...

    def forgetting(self, job: str) -> str:
        """How a person has a job forgotten that is gone for good, in words."""
        ...


@dataclass(frozen=True)
class JobFile:
    """The jobs of one machine, in a file that its processes share."""

    file: Path

    def note(self, job: Job) -> None:
        """As `Jobs.note`, in one statement."""
        with self._opened() as notes:
            notes.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, 0)", job.row)

    def waiting(self, target: str) -> list[Job]:
        """As `Jobs.waiting`."""
        return [each for each in self.every_waiting() if each.target == target]

    def every_waiting(self) -> list[Job]:
        """Those of every target."""
        if not self.file.exists():
            return []
        with self._opened() as notes:
            rows = notes.execute("SELECT id, target, handle, keys FROM jobs WHERE collected = 0").fetchall()
        return [Job.of(row) for row in rows]

    def note_collected(self, target: str, job: str) -> None:
        """As `Jobs.note_collected`."""
        done = "UPDATE jobs SET collected = 1 WHERE target = ? AND id IN (?, ?)"
        with self._opened() as notes:
            notes.execute(done, (target, job, f"{target}/{job}"))

    @contextmanager
    def turn(self, target: str) -> Iterator[None]:
        """A locked file beside this one, for all targets."""
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):
            yield

    def forgetting(self, job: str) -> str:
        """As `Jobs.forgetting`."""
        return f"delete {self.file}"

    def _opened(self) -> closing[sqlite3.Connection]:
        return closing(open_wal(self.file, TABLE))


@dataclass(frozen=True)
class SharedJobs:
    """The jobs of every machine, in Postgres.

    Each is first noted in a file of its machine and handed on from there: the database may be away at the moment when
    a job was made, and what was noted before the state was shared is not forgotten.
    """

    shown: str
    writer: Writer
    reader: Session
    turns: Turns
    here: JobFile

    def note(self, job: Job) -> None:
        """As `Jobs.note`; StateAway where only this machine knows of it until its next run."""
        try:
            self.here.note(job)
        except (OSError, sqlite3.Error, BadInput) as error:  # its disk is full, say; the job is paid all the same
            log.warning(f"{self.here.file}: takes no note of job {job.id} ({error}); it is in the shared state alone")
            self._note_everywhere(job)
            return
        self._hand_on()

    def waiting(self, target: str) -> list[Job]:
        """As `Jobs.waiting`, those that only this machine knew of included."""
        self._hand_on()
        rows = self.reader.patiently(lambda database: database.execute(WAITING, (target,)).fetchall())
        return [Job.of(row) for row in rows]

    def note_collected(self, target: str, job: str) -> None:
        """As `Jobs.note_collected`, once every answer that was put is committed: nobody fetches them again."""
        self.writer.flush()
        done = "UPDATE jobs SET collected = true WHERE id = %s"
        self.reader.patiently(lambda database: database.execute(done, (f"{target}/{job}",)))

    def turn(self, target: str) -> AbstractContextManager[None]:
        """A turn over all machines, for this target."""
        return self.turns.turn(f"batches-{target}")

    def forgetting(self, job: str) -> str:
        """As `Jobs.forgetting`."""
        return f"take the row {job} out of the table leastwise.jobs in {self.shown}"

    def _hand_on(self) -> None:
        for job in self.here.every_waiting():
            self._note_everywhere(job)
            self.here.note_collected(job.target, job.id)  # by the other machines from now on

    def _note_everywhere(self, job: Job) -> None:
        self.reader.patiently(lambda database: database.execute(NOTE, job.row))
