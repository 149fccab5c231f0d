"""Who is at work on the shared state: each process is heard of with every block, by the database's clock alone.

Whoever was not heard of for `GIVEN_UP_S` is given up; one that was killed on this machine at once, for its sign of
life says so (`leastwise.stores.lease`). Its calls in flight are counted at their worst; should it come back, it books
what they really cost. No machine's clock is asked, so skew between machines changes nothing; a database that moves to a
machine with another clock shifts the moment by their difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from leastwise.stores.lease import Sign
from leastwise.stores.shared.block import Closing
from leastwise.stores.shared.booking import Books, Moment, end, write_changes
from leastwise.stores.shared.connection import Database
from leastwise.use_case.price import Usage

GIVEN_UP_S = 120  # more than the database is waited for, so that who is cut off gives up before others give it up
KEPT_DAYS = 7

HEARD = """
INSERT INTO owners VALUES (%s, %s, clock_timestamp(), %s)
ON CONFLICT (owner) DO UPDATE SET heard = clock_timestamp(), block = excluded.block
RETURNING to_char(heard AT TIME ZONE 'utc', 'YYYY-MM'), extract(epoch FROM heard)::float8
"""
LAST_BLOCK = "SELECT block FROM owners WHERE owner = %s"
AT_WORK = f"""
SELECT calls.owner, owners.sign, owners.heard > clock_timestamp() - interval '{GIVEN_UP_S} s'
FROM (SELECT DISTINCT owner FROM calls WHERE state = 'open') AS calls LEFT JOIN owners USING (owner)
"""  # noqa: S608 (our own words)
STILL_SILENT = f"""
SELECT heard > clock_timestamp() - interval '{GIVEN_UP_S} s', sign FROM owners WHERE owner = %s FOR UPDATE
"""  # noqa: S608 (our own words)
FORGET = f"""
DELETE FROM owners WHERE heard < clock_timestamp() - interval '{KEPT_DAYS} days'
AND NOT EXISTS (SELECT 1 FROM calls WHERE calls.owner = owners.owner AND state = 'open')
AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.owner = owners.owner)
"""  # noqa: S608 (our own words)


@dataclass(frozen=True)
class Owner:
    """A process at work, and its sign of life on its machine."""

    name: str
    sign: str


def hear(database: Database, owner: Owner, block: int) -> Moment:
    """Say that it lives and which block it writes; gives back what time it is."""
    row = database.execute(HEARD, (owner.name, owner.sign, block)).fetchone()
    month, unix_s = cast("tuple[str, float]", row)
    return Moment(owner.name, month, unix_s)


def last_block(database: Database, owner: Owner) -> int:
    """The last block of it that was committed; 0 where none was."""
    row = database.execute(LAST_BLOCK, (owner.name,)).fetchone()
    return cast("int", row[0]) if row else 0


def is_alive(was_heard: object, sign: object) -> bool:
    """Whether a process lives: it was heard of lately, unless this machine knows better."""
    read = Sign.parse(str(sign or ""))
    return bool(was_heard) and not (read is not None and read.is_surely_dead)


def give_up(database: Database, but: Owner) -> None:
    """Count the calls in flight of whoever is dead at their worst, each process in a transaction of its own."""
    for name, sign, was_heard in database.execute(AT_WORK).fetchall():
        if name != but.name and not is_alive(was_heard, sign):
            with database.transaction():
                _give_up(database, str(name))
    database.execute(FORGET)


def _give_up(database: Database, name: str) -> None:
    # Its own row first, as it does itself: it cannot write a block at the same moment.
    row = database.execute(STILL_SILENT, (name,)).fetchone()
    if row and is_alive(*row):
        return
    found = database.execute("SELECT id FROM calls WHERE owner = %s AND state = 'open' ORDER BY id", (name,)).fetchall()
    calls = [cast("int", call) for (call,) in found]
    books = Books()
    end(database, books, [Closing(call, "unknown", None, Usage()) for call in calls])
    database.execute("UPDATE calls SET is_orphan = true WHERE id = ANY(%s) AND state = 'unknown'", (calls,))
    write_changes(database, books)
