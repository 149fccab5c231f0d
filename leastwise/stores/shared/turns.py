"""Whose turn it is: short turns that are waited for, and leases of what one process works on for hours.

On one machine turns are locked files, and leases are what MLflow's tags say (`leastwise.record.client`), so nothing is
leased here; over several machines both are the database's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from leastwise.stores.lease import Sign
from leastwise.stores.shared.address import Address
from leastwise.stores.shared.connection import GOES_ON, Database, Session
from leastwise.stores.shared.owners import GIVEN_UP_S, is_alive
from leastwise.stores.shared.writer import Writer

LONGEST_TURN_S = 300

HOLDER = f"""
SELECT leases.owner, sign, heard > clock_timestamp() - interval '{GIVEN_UP_S} s',
    extract(epoch FROM clock_timestamp() - heard)::float8
FROM leases LEFT JOIN owners USING (owner) WHERE name = %s
"""  # noqa: S608 (our own words)


@dataclass(frozen=True)
class Holder:
    """Who works on something, in words, and how many seconds ago it was heard of."""

    in_words: str
    heard_s_ago: float


class Turns(Protocol):
    """Who may do what only one process may do at a time."""

    @property
    def leases(self) -> bool:
        """Whether leases are kept here, so that nothing else need tell who is at work."""
        ...

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Nobody else does this while the block runs; waits for whoever does. Not to be nested under one name."""
        ...

    def require(self, name: str) -> None:
        """Inside the block: that the turn is still this process's own; TurnLost where another may have it by now."""
        ...

    def take(self, name: str) -> Holder | None:
        """Work on something from now on; gives back who does already, None where nobody else does."""
        ...

    def give_back(self, name: str) -> None:
        """No longer work on it."""
        ...


class TurnLost(RuntimeError):  # noqa: N818 (an outage, not a defect)
    """The database broke off in the middle of a turn, so that another process may have begun its own."""


@dataclass(frozen=True)
class FileTurns:
    """The turns of the processes that share a state directory."""

    home: Path
    leases = False

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """A locked file while the block runs."""
        from filelock import FileLock

        self.home.mkdir(parents=True, exist_ok=True)
        with FileLock(self.home / f"{name}.lock"):
            yield

    def require(self, name: str) -> None:
        """A locked file stays locked."""

    def take(self, name: str) -> Holder | None:
        """Nothing is leased here."""
        return None

    def give_back(self, name: str) -> None:
        """Nothing is leased here."""


@dataclass(frozen=True)
class SharedTurns:
    """The turns of every machine. A turn ends with its connection, so with a kill at once; a lease as its process is
    given up (`owners.py`).
    """

    address: Address
    writer: Writer
    reader: Session
    leases = True

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """An advisory lock on a connection of its own; TimeoutError after LONGEST_TURN_S."""
        with closing(Session(self.address)) as session:
            _held[name, threading.get_ident()] = session.patiently(partial(_waited_for, name=name))
            try:
                yield
            finally:
                del _held[name, threading.get_ident()]

    def require(self, name: str) -> None:
        """The lock is the connection's: it is held as long as that very one answers."""
        import psycopg

        try:
            _held[name, threading.get_ident()].execute("SELECT 1")
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise TurnLost(
                f"{name}: the shared state at {self.address.shown} broke off in the middle of this turn, and another "
                f"process may have its own by now; nothing more is done. What was begun is written down, so {GOES_ON}"
            ) from None

    def take(self, name: str) -> Holder | None:
        """One row; that of a process that is given up is taken over."""
        holder = self.reader.patiently(lambda database: self._taken(database, name))
        if holder is None:
            self.writer.hold(name)
        return holder

    def give_back(self, name: str) -> None:
        """Everything this process asked is committed before another may take it up."""
        self.writer.flush()
        self.writer.let_go(name)
        mine = "DELETE FROM leases WHERE name = %s AND owner = %s"
        self.reader.patiently(lambda database: database.execute(mine, (name, self.writer.owner.name)))

    def _taken(self, database: Database, name: str) -> Holder | None:
        me = self.writer.owner.name
        with database.transaction():
            database.execute("INSERT INTO leases VALUES (%s, %s) ON CONFLICT (name) DO NOTHING", (name, me))
            database.execute("SELECT 1 FROM leases WHERE name = %s FOR UPDATE", (name,))
            row = database.execute(HOLDER, (name,)).fetchone()
            assert row is not None
            owner, sign, was_heard, heard_s_ago = row
            if owner != me and is_alive(was_heard, sign):
                read = Sign.parse(str(sign))
                return Holder(read.in_words if read else "another process", cast("float", heard_s_ago))
            database.execute("UPDATE leases SET owner = %s WHERE name = %s", (me, name))
        return None


_held: dict[tuple[str, int], Database] = {}  # by the name of the turn and the thread that has it


def _waited_for(session: Database, name: str) -> Database:
    """The connection, once it has the turn."""
    import psycopg

    key = int.from_bytes(hashlib.sha256(f"leastwise:{name}".encode()).digest()[:8], signed=True)
    session.execute("SET statement_timeout TO 0")
    session.execute(f"SET lock_timeout TO '{LONGEST_TURN_S}s'".encode())
    try:
        session.execute("SELECT pg_advisory_lock(%s)", (key,))
    except psycopg.errors.LockNotAvailable:
        raise TimeoutError(
            f"{name}: another process has had its turn for {LONGEST_TURN_S} s; end it, or run this again later"
        ) from None
    return session
