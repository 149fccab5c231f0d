"""Connections to the shared state's database, and patience while it is away, for a stated time.

It knows no table. Each session ends a statement, and a transaction left idle, after a time of its own, so that a
machine that is cut off or frozen in the middle holds nobody up for longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from leastwise.errors import BadInput
from leastwise.stores.shared.address import VARIABLE, Address

if TYPE_CHECKING:
    from psycopg import Connection

Database: TypeAlias = "Connection[tuple[object, ...]]"
T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
KEEPALIVE: dict[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
SESSION = (
    "SET search_path TO leastwise",
    "SET synchronous_commit TO on",
    "SET statement_timeout TO '30s'",
    "SET idle_in_transaction_session_timeout TO '15s'",
    "SET tcp_keepalives_idle TO 5",  # of the server: the turn of a machine that is cut off ends within half a minute
    "SET tcp_keepalives_interval TO 5",
    "SET tcp_keepalives_count TO 3",
)
GOES_ON = "run the same command again: it goes on from here and buys no answer twice"


class StateAway(RuntimeError):  # noqa: N818 (an outage, not a defect)
    """The database was away for longer than is waited for; what was asked before is in it, or kept beside it here."""


def connected(address: Address) -> Database:
    """A new connection that commits each statement of its own; BadInput where the address or its user is wrong."""
    try:
        import psycopg
    except ImportError:
        raise BadInput(f"{VARIABLE}: needs a driver; `pip install 'leastwise[shared]'`") from None
    try:
        where = psycopg.conninfo.make_conninfo(**KEEPALIVE | dict(address.options))
        session = psycopg.connect(where, autocommit=True)
    except psycopg.OperationalError as error:
        if told := _wrong(str(error)):
            raise BadInput(f"{VARIABLE}: {address.shown} {told}") from None
        raise
    for setting in SESSION:
        session.execute(setting)
    return session


def _wrong(said: str) -> str:
    """What a person must put right, in our words; empty where waiting may help."""
    if "authentication failed" in said or "no password supplied" in said:
        return "does not take this user and password; correct them"
    if "database" in said and "does not exist" in said:
        return "has no such database; make it (`createdb`), or name another"
    if "role" in said and "does not exist" in said:
        return "knows no such user; correct it"
    return ""


class Session:
    """One connection, made when it is used and made again after it was lost; for one thread at a time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: Database | None = None
        self._turn = threading.Lock()

    def patiently(self, work: Callable[[Database], T]) -> T:
        """Do this over the connection, again and again while the database is away: so it must bear to be repeated.

        StateAway after the address's patience.
        """
        import psycopg

        until, pause_s = time.monotonic() + self.address.patience_s, FIRST_PAUSE_S
        with self._turn:
            while True:
                try:
                    self._connection = self._connection or connected(self.address)
                    return work(self._connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    self._drop()
                    if time.monotonic() + pause_s > until:
                        raise self._away(error) from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close the connection; it is made again if it is used again."""
        with self._turn:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _away(self, error: Exception) -> StateAway:
        said = " ".join(str(error).split())[:200]
        return StateAway(
            f"{VARIABLE}: the shared state at {self.address.shown} was away for {self.address.patience_s:.0f} s "
            f"({said}); bring it back, and {GOES_ON}"
        )
