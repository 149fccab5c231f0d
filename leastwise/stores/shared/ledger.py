"""The ledger of several machines, in Postgres: caps that hold over all of them, by the rule of blocks in `writer.py`.

It prices nothing. Reservations are durable before they are promised; endings go with the next block.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from leastwise.stores.caps import Caps, Purpose
from leastwise.stores.ledger import Ended, Ledger, worsts_nano
from leastwise.stores.shared.block import Closing, Reserving
from leastwise.stores.shared.connection import Session
from leastwise.stores.shared.writer import Writer
from leastwise.use_case.price import Usage


class SharedLedger(Ledger):
    """The ledger as one process sees it; what it asked for itself is in every figure it reads."""

    minute = "floor(reserved_unix_s / 60)"

    def __init__(self, writer: Writer, reader: Session) -> None:
        self._writer, self._reader = writer, reader

    def promise_all(
        self, caps: Caps, use_case: str, stage: str, usd_worsts: Sequence[float], purpose: Purpose = "evaluation"
    ) -> Future[list[int]]:
        """As `Ledger.promise_all`; StateAway where the database was away for too long."""
        wanted = Reserving(caps, use_case, stage, worsts_nano(usd_worsts), purpose)
        self._writer.reserve(wanted)
        return wanted.promised

    def close(self) -> None:
        """Everything that was asked is committed; the connection is kept for whoever opens the state next."""
        self._writer.flush()

    def _close(self, reservation_id: int, state: Ended, actual_nano: int | None, usage: Usage) -> None:
        if not self._writer.is_last_word_on(reservation_id):
            raise ValueError(
                f"reservation {reservation_id} is not open here: each is settled or released exactly once, by the "
                "process that made it"
            )
        self._writer.add(Closing(reservation_id, state, actual_nano, usage))

    def _rows(self, query: str, *values: str | float) -> list[tuple[object, ...]]:
        self._writer.flush()
        asked = query.replace("?", "%s")
        return self._reader.patiently(lambda database: database.execute(asked.encode(), values).fetchall())
