"""Writes what a process asks of the shared state, in blocks: all that is waiting, in one transaction after another.

**The rule of blocks.** A reservation is promised, and its call sent, only once its block is committed: the caps are
checked there, under a lock on the totals, and nothing is handed out in advance. So the caps hold over all machines at
every moment, no budget lies where nobody uses it, and of a process that is killed exactly the calls in flight are
counted at their worst. Many calls share a transaction, so their number a second does not depend on how long one takes;
a call waits for two of them at most.

Answers and endings of calls are not waited for: they go into the next block, an answer into the same one as its
settlement or an earlier one. Until then the call is in flight: a kill may lose it, counted at its worst, never half.

A database that is away is waited for (`Address.patience_s`); a block whose commit nobody could see is recognised by its
number. After that nothing more is sent, what came is kept beside the state (`unsent.py`), and every call raises.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from leastwise.stores.shared import keeping, owners
from leastwise.stores.shared.block import Block, Closing, Kept, Reserving, Timed
from leastwise.stores.shared.booking import book
from leastwise.stores.shared.connection import Database, Session
from leastwise.stores.shared.owners import Owner
from leastwise.stores.shared.schema import IDS_AT_ONCE
from leastwise.stores.shared.unsent import keep_unsent

HEARD_S = 15.0  # how often a process that writes nothing is heard of


class LeaseLost(RuntimeError):  # noqa: N818 (an outage, not a defect)
    """This process was silent for so long that another works in its place."""


class Writer:
    """One thread and one connection of a process; `unsent`: the folder for what could not be written."""

    def __init__(self, session: Session, owner: Owner, unsent: Path) -> None:
        self.owner, self._session, self._unsent = owner, session, unsent
        self._changed = threading.Condition()
        self._waiting = Block(1)
        self._written = 0
        self._failure: Exception | None = None
        self._tried = -1
        self._is_ending = False
        self._ids: Iterator[int] = iter(())
        self._leases: set[str] = set()
        self._open: set[int] = set()  # calls reserved here that have not ended
        self._thread = threading.Thread(target=self._work, name="shared state", daemon=True)

    def start(self) -> None:
        """Say that this process lives, and go on saying so; what is written from now on goes through here."""
        self._session.patiently(partial(self._write, block=Block(0)))
        self._thread.start()
        atexit.register(self._end)

    def reserve(self, wanted: Reserving) -> None:
        """It is told as soon as it is committed."""
        with self._changed:
            if self._failure:
                raise self._failure
            self._waiting.reserving.append(wanted)
            self._changed.notify_all()

    def add(self, *more: Kept | Timed | Closing) -> None:
        """They are written with the next block, together; where nothing can be written any more they are kept here."""
        with self._changed:
            if self._failure:
                late = Block(0)
                late.add(*more)
                keep_unsent(self._unsent, self.owner.name, late)
                return
            self._waiting.add(*more)
            self._changed.notify_all()

    def is_last_word_on(self, call: int) -> bool:
        """Whether this process reserved a call and has not told how it ended; from now on it has."""
        with self._changed:
            is_open = call in self._open
            self._open.discard(call)
        return is_open

    def flush(self) -> None:
        """Wait until everything that was added is committed; raises where it cannot be."""
        with self._changed:
            wanted = self._waiting.number - int(self._waiting.is_empty)
            self._changed.wait_for(lambda: self._written >= wanted or self._failure)
            if self._failure:
                raise self._failure

    def hold(self, lease: str) -> None:
        """From now on nothing is written any more once another process holds this lease."""
        with self._changed:
            self._leases.add(lease)

    def let_go(self, lease: str) -> None:
        """The lease is to be given back."""
        with self._changed:
            self._leases.discard(lease)

    def _work(self) -> None:
        while True:
            with self._changed:
                has_more = self._changed.wait_for(lambda: not self._waiting.is_empty or self._is_ending, HEARD_S)
                if self._is_ending and self._waiting.is_empty:
                    return
                block, self._waiting = self._waiting, Block(self._waiting.number + 1)
            block.reserving = [each for each in block.reserving if each.promised.set_running_or_notify_cancel()]
            try:
                self._session.patiently(partial(self._write, block=block))
                if not has_more:
                    self._session.patiently(lambda database: owners.give_up(database, self.owner))
            except Exception as error:
                self._fail(error, block)
                return
            with self._changed:
                self._written = block.number
                self._open.update(call for each in block.reserving for call in each.ids)
                self._changed.notify_all()
            for each in block.reserving:
                each.tell()

    def _write(self, database: Database, block: Block) -> None:
        """Once, however often it is tried."""
        if self._tried == block.number and owners.last_block(database, self.owner) == block.number:
            return  # it was committed, though nobody could say so
        self._tried = block.number
        with database.transaction():
            now = owners.hear(database, self.owner, block.number)
            self._require_leases(database)
            keeping.keep(database, block.kept, block.timed)
            book(database, now, block.closing, block.reserving, lambda: self._new_id(database))

    def _require_leases(self, database: Database) -> None:
        with self._changed:
            wanted = set(self._leases)
        if wanted:
            rows = database.execute("SELECT name FROM leases WHERE owner = %s", (self.owner.name,)).fetchall()
            with self._changed:
                lost = sorted(wanted.intersection(self._leases) - {str(name) for (name,) in rows})
            if lost:
                raise LeaseLost(
                    f"{lost[0]}: this process was not heard of for {owners.GIVEN_UP_S} s, and another has gone on in "
                    "its place; what it measured until then is kept. Nothing is to be done"
                )

    def _new_id(self, database: Database) -> int:
        while (number := next(self._ids, None)) is None:
            row = database.execute("SELECT nextval('call_ids')").fetchone()
            assert row is not None and isinstance(row[0], int)
            self._ids = iter(range(row[0], row[0] + IDS_AT_ONCE))
        return number

    def _fail(self, error: Exception, block: Block) -> None:
        """Keep what came, tell everybody, and write no more."""
        with self._changed:
            self._failure = error
            waiting = self._waiting
            for each in (block, waiting):
                with contextlib.suppress(OSError):  # nowhere to keep it: what was in flight is bought again
                    keep_unsent(self._unsent, self.owner.name, each)
            self._changed.notify_all()
        for wanted in (*block.reserving, *waiting.reserving):
            if wanted in block.reserving or wanted.promised.set_running_or_notify_cancel():
                wanted.promised.set_exception(error)

    def _end(self) -> None:
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join()
