"""A response cache for production: an identical request to the same candidate is answered from a store, for a while.

The key is everything that determines an answer: the candidate (its version) and the whole request. Two stores: one
file of this machine, shared by its processes and bounded in size, or Redis where several machines share one. It
compares no meaning: a request that differs in one character is another one (semantic caching is not offered, since its
false hits are not bounded).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.stores.answer_store import answer_key
from leastwise.stores.sqlite_file import open_wal, transaction

REDIS_VARIABLE = "LEASTWISE_REDIS_URL"  # in the environment, since it may hold a password
PREFIX = "leastwise:"

SCHEMA = """
CREATE TABLE IF NOT EXISTS held (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_unix_s REAL NOT NULL, used_unix_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON held (used_unix_s);
CREATE TABLE IF NOT EXISTS size (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO size VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON held BEGIN
    UPDATE size SET bytes = bytes + length(NEW.value) + length(NEW.key); END;
CREATE TRIGGER IF NOT EXISTS dropped AFTER DELETE ON held BEGIN
    UPDATE size SET bytes = bytes - length(OLD.value) - length(OLD.key); END;
"""
DROP_OLDEST = """
DELETE FROM held WHERE key IN (SELECT key FROM held WHERE key != ? ORDER BY used_unix_s LIMIT 16)
"""


class ResponseCache(Protocol):
    """A store of answers that forgets."""

    def get(self, key: str) -> bytes | None:
        """The answer under a key, if it is there and not too old."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer for the cache's time to live."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def response_key(candidate: Candidate, request: object) -> str:
    """The key of a request to a candidate; `request` is anything that JSON can hold, the whole of it."""
    return answer_key(candidate=candidate.key, request=request)


class CachedAnswer(NamedTuple):
    """An answer, and whether it came from the cache."""

    text: str
    was_held: bool


def answered(cache: ResponseCache, candidate: Candidate, request: object, ask: Callable[[], str]) -> CachedAnswer:
    """The answer to a request; `ask` is called where the cache does not hold it, and its answer kept."""
    key = response_key(candidate, request)
    held = cache.get(key)
    if held is not None:
        return CachedAnswer(held.decode(), was_held=True)
    text = ask()
    cache.put(key, text.encode())
    return CachedAnswer(text, was_held=False)


def open_cache(path: Path, ttl_s: float, most_bytes: int) -> ResponseCache:
    """Redis where LEASTWISE_REDIS_URL is set, else the file `path`; BadInput where Redis does not answer."""
    url = os.environ.get(REDIS_VARIABLE)
    return RedisCache(url, ttl_s) if url else FileCache(path, ttl_s, most_bytes)


class FileCache:
    """An SQLite file, safe with several processes, of at most `most_bytes` of keys and answers.

    What was used longest ago goes first. `clock` gives unix seconds: a replay of old traffic brings its own.
    """

    def __init__(self, path: Path, ttl_s: float, most_bytes: int, clock: Callable[[], float] = time.time) -> None:
        if ttl_s <= 0 or most_bytes <= 0:
            raise BadInput(f"response cache: ttl_s {ttl_s} and most_bytes {most_bytes} must be above 0")
        self.ttl_s, self.most_bytes, self.clock = ttl_s, most_bytes, clock
        self._connection = open_wal(path, SCHEMA)

    def get(self, key: str) -> bytes | None:
        """As `ResponseCache.get`; None where the file cannot be written (a full disk, say): a cache is never why there
        is no answer.
        """
        now = self.clock()
        try:
            row = self._connection.execute(
                "UPDATE held SET used_unix_s = ? WHERE key = ? AND expires_unix_s > ? RETURNING value", (now, key, now)
            ).fetchone()
        except sqlite3.OperationalError:
            return None
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: bytes) -> None:
        """As `ResponseCache.put`; an answer larger than the whole cache, or than the disk has left, is not kept."""
        if len(value) + len(key) > self.most_bytes:
            return
        with suppress(sqlite3.OperationalError):
            self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        now = self.clock()
        with transaction(self._connection):
            # REPLACE would not fire the trigger that counts what goes.
            self._connection.execute("DELETE FROM held WHERE key = ?", (key,))
            self._connection.execute("INSERT INTO held VALUES (?, ?, ?, ?)", (key, value, now + self.ttl_s, now))
            if self._bytes() > self.most_bytes:
                self._connection.execute("DELETE FROM held WHERE expires_unix_s <= ?", (now,))
            while self._bytes() > self.most_bytes:
                self._connection.execute(DROP_OLDEST, (key,))

    def _bytes(self) -> int:
        return int(self._connection.execute("SELECT bytes FROM size").fetchone()[0])

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM held").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RedisCache:
    """Redis: it forgets by itself after the time to live; its size is bounded by its own `maxmemory`.

    A Redis that is away costs the saving, not the answer: a request that cannot be looked up is a miss.
    """

    def __init__(self, url: str, ttl_s: float) -> None:
        import redis

        self._down = redis.RedisError
        self._client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=2.0)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise BadInput(
                f"{REDIS_VARIABLE}: Redis does not answer there ({type(error).__name__}); start it or unset it"
            ) from None

    def get(self, key: str) -> bytes | None:
        """As `ResponseCache.get`."""
        try:
            held = self._client.get(PREFIX + key)
        except self._down:
            return None
        return bytes(held) if isinstance(held, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        """As `ResponseCache.put`."""
        try:
            self._client.set(PREFIX + key, value, px=self._ttl_ms)
        except self._down:
            return

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
