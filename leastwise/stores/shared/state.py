"""The state of this process, opened: files under LEASTWISE_HOME, or Postgres where LEASTWISE_STATE names one.

The one place that chooses. What is opened of a database is kept for the process: one thread and two connections.
"""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leastwise.stores import lease, storage
from leastwise.stores.answer_store import Answers, ResponseStore
from leastwise.stores.ledger import Ledger
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.shared import owners, schema
from leastwise.stores.shared.address import Address, address
from leastwise.stores.shared.answers import SharedAnswers
from leastwise.stores.shared.connection import Session
from leastwise.stores.shared.jobs import FILE, JobFile, Jobs, SharedJobs
from leastwise.stores.shared.ledger import SharedLedger
from leastwise.stores.shared.owners import Owner
from leastwise.stores.shared.turns import FileTurns, SharedTurns, Turns
from leastwise.stores.shared.unsent import FOLDER, unsent
from leastwise.stores.shared.writer import Writer

_opened: dict[tuple[int, Address, Path], SharedState] = {}
_turn = threading.Lock()


@dataclass(frozen=True)
class State:
    """What outlives the processes of a use case: what was spent, and what was answered."""

    ledger: Ledger
    answers: Answers


@dataclass(frozen=True)
class SharedState:
    """A database as one process has it open."""

    address: Address
    writer: Writer
    reader: Session

    @property
    def turns(self) -> SharedTurns:
        """Whose turn it is, over all machines."""
        return SharedTurns(self.address, self.writer, self.reader)


def open_state(home: Path) -> State:
    """Ledger and answers; `home` is where they are kept in files. BadInput where the database cannot be used."""
    shared = shared_state(home)
    if shared is None:
        return State(LedgerFile(home / "ledger.db"), ResponseStore(home / "responses.db"))
    return State(SharedLedger(shared.writer, shared.reader), SharedAnswers(shared.writer, shared.reader))


def open_jobs(home: Path) -> Jobs:
    """The provider batch jobs that were made and not collected; `home` is where they are noted in a file."""
    shared, here = shared_state(home), JobFile(home / FILE)
    return SharedJobs(shared.address.shown, shared.writer, shared.reader, shared.turns, here) if shared else here


def turns() -> Turns:
    """Whose turn it is among all who share this process's state."""
    shared = shared_state(storage.home())
    return shared.turns if shared else FileTurns(storage.home())


def shared_state(home: Path) -> SharedState | None:
    """The database of LEASTWISE_STATE, opened once a process; None where the state is in files."""
    where = address()
    if where is None:
        return None
    key = (os.getpid(), where, home)  # a forked child has its own
    with _turn:
        if key not in _opened:
            _opened[key] = _open(where, home)
        return _opened[key]


def _open(where: Address, home: Path) -> SharedState:
    reader = Session(where)
    reader.patiently(partial(schema.ensure, shown=where.shown))
    owner = Owner(uuid.uuid4().hex, lease.sign(home / lease.FOLDER).text)
    writer = Writer(Session(where), owner, home / FOLDER)
    writer.start()
    reader.patiently(lambda database: owners.give_up(database, owner))
    for file, block in unsent(home / FOLDER):
        writer.add(*block.kept, *block.timed, *block.closing)
        writer.flush()
        file.unlink(missing_ok=True)
    return SharedState(where, writer, reader)
