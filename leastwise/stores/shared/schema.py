"""The tables of the shared state, in a schema of their own, made at the first opening and marked with a version.

It moves nothing. Texts of models are bytes: Postgres takes no NUL in a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.stores.shared.address import VARIABLE

if TYPE_CHECKING:
    from psycopg import Connection

VERSION = 1
MAKING = 0x1EA57_0001  # the advisory lock of whoever makes the tables: two that come at once make them once
IDS_AT_ONCE = 1000  # a process takes so many numbers of calls at a time, which it need not all use

SCHEMA = f"""
SET LOCAL search_path TO leastwise;
CREATE TABLE version (version integer NOT NULL);
CREATE SEQUENCE call_ids INCREMENT BY {IDS_AT_ONCE};
CREATE TABLE owners (
    owner text PRIMARY KEY, sign text NOT NULL, heard timestamptz NOT NULL, block bigint NOT NULL
);
CREATE TABLE calls (
    id bigint PRIMARY KEY, climb_id text NOT NULL, use_case text NOT NULL, stage text NOT NULL, month text NOT NULL,
    state text NOT NULL, worst_nano_usd bigint NOT NULL, actual_nano_usd bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0, cached_tokens bigint NOT NULL DEFAULT 0,
    cache_write_tokens bigint NOT NULL DEFAULT 0, output_tokens bigint NOT NULL DEFAULT 0, purpose text NOT NULL,
    reserved_unix_s double precision NOT NULL, owner text NOT NULL, is_orphan boolean NOT NULL DEFAULT false
);
CREATE INDEX calls_of_climb ON calls (climb_id);
CREATE INDEX calls_of_use_case ON calls (use_case, reserved_unix_s);
CREATE INDEX open_calls_of ON calls (owner) WHERE state = 'open';
CREATE TABLE totals (
    scope text PRIMARY KEY, spent_nano_usd bigint NOT NULL DEFAULT 0, reserved_nano_usd bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE answers (
    key text PRIMARY KEY, text bytea NOT NULL, finish_reason text NOT NULL, input_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL, cache_write_tokens bigint NOT NULL, output_tokens bigint NOT NULL,
    latency_ms double precision NOT NULL, created double precision NOT NULL, confidence double precision,
    usage_known boolean NOT NULL, raw bytea NOT NULL, answered_by bytea NOT NULL DEFAULT ''
);
CREATE TABLE latencies (
    key text NOT NULL, place text NOT NULL, latency_ms double precision NOT NULL, PRIMARY KEY (key, place)
);
CREATE TABLE leases (name text PRIMARY KEY, owner text NOT NULL);
CREATE TABLE jobs (
    id text PRIMARY KEY, target text NOT NULL, handle text NOT NULL, keys text NOT NULL,
    collected boolean NOT NULL DEFAULT false
);
INSERT INTO version VALUES ({VERSION});
"""  # noqa: S608 (our own words)
# What version 1 did not have at first; machines of before write their rows without it, so it is no other version.
HAS_ADDED = """
SELECT 1 FROM pg_attribute
WHERE attrelid = 'leastwise.answers'::regclass AND attname = 'answered_by' AND NOT attisdropped
"""
ADD = "ALTER TABLE leastwise.answers ADD COLUMN answered_by bytea NOT NULL DEFAULT ''"


def ensure(connection: Connection[tuple[object, ...]], shown: str) -> None:
    """Make the tables where there are none; BadInput where they are of a later version, or must not be made."""
    import psycopg

    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
        row = connection.execute("SELECT to_regclass('leastwise.version') IS NOT NULL").fetchone()
        if not (row and row[0]):
            named = connection.execute("SELECT to_regnamespace('leastwise') IS NOT NULL").fetchone()
            try:
                if not (named and named[0]):  # with its name there, nobody needs the right to make one
                    connection.execute("CREATE SCHEMA leastwise")
                connection.execute(SCHEMA)
            except psycopg.errors.InsufficientPrivilege:
                raise BadInput(
                    f"{VARIABLE}: this user may make no schema in {shown}; `GRANT CREATE ON DATABASE … TO …`, or have "
                    "an administrator run `CREATE SCHEMA leastwise AUTHORIZATION …`"
                ) from None
        found = connection.execute("SELECT version FROM leastwise.version").fetchone()
    if found != (VERSION,):
        raise BadInput(
            f"{VARIABLE}: the tables in {shown} are of version {found[0] if found else 'none'}, and this Leastwise "
            f"knows version {VERSION}; install the version that the other machines have"
        )
    _add(connection, shown)


def _add(connection: Connection[tuple[object, ...]], shown: str) -> None:
    """What was added to the tables later; BadInput where this user may not, for then whoever made them must."""
    import psycopg

    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
            if connection.execute(HAS_ADDED).fetchone() is None:
                connection.execute(ADD)
    except psycopg.errors.InsufficientPrivilege:
        raise BadInput(
            f"{VARIABLE}: the tables in {shown} lack a column, and this user did not make them; have their owner open "
            f"this state once with this version, or run `{ADD}`"
        ) from None
