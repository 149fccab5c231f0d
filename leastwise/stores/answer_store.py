"""Keeps every answer a model gave, so that none is bought twice.

It does not call models, does not decide what an answer is worth, and never forgets: a stored answer keeps the latency,
usage and price it had when it was bought. Safe with several processes on one machine, not on a network file system.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from leastwise.stores.sqlite_file import open_wal
from leastwise.use_case.price import Usage

KEYS_PER_QUERY = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, usd REAL NOT NULL, latency_ms REAL NOT NULL, created REAL NOT NULL, confidence REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS latencies (
    key TEXT NOT NULL, place TEXT NOT NULL, latency_ms REAL NOT NULL, PRIMARY KEY (key, place)
) WITHOUT ROWID
"""

Row = tuple[str, str, str, int, int, int, int, float, float, float, float | None]  # as SCHEMA has it


@dataclass(frozen=True)
class StoredAnswer:
    """One complete answer as it was received; `usd` and `latency_ms` are those of the call that bought it.

    `confidence` is the probability the model gave its own words, where that was asked for and the provider tells it.
    """

    text: str
    finish_reason: str
    usage: Usage
    usd: float
    latency_ms: float
    created_unix_s: float
    confidence: float | None = None


def answer_key(**determinants: object) -> str:
    """SHA-256 (hex) of everything that determines an answer; the values must be JSON, the order does not matter."""
    text = json.dumps(determinants, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class ResponseStore:
    """A durable map from `answer_key(...)` to `StoredAnswer`; the first answer under a key stays."""

    def __init__(self, path: Path) -> None:
        self._connection = open_wal(path, SCHEMA)
        columns = {row[1] for row in self._connection.execute("PRAGMA table_info(answers)")}
        if "confidence" not in columns:  # a store of an earlier version
            self._connection.execute("ALTER TABLE answers ADD COLUMN confidence REAL")

    def put(self, key: str, answer: StoredAnswer) -> None:
        """Keep an answer; on return it survives the death of this process. A later answer under the key is ignored."""
        row = (key, answer.text, answer.finish_reason, *astuple(answer.usage), answer.usd, answer.latency_ms)
        self._connection.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, answer.created_unix_s, answer.confidence),
        )

    def get_many(self, keys: Sequence[str]) -> dict[str, StoredAnswer]:
        """The stored answers among `keys`; a key without an answer is absent."""
        answers: dict[str, StoredAnswer] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            batch = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(batch))
            query = f"SELECT * FROM answers WHERE key IN ({marks})"  # noqa: S608 (only question marks are inserted)
            with closing(self._connection.execute(query, batch)) as rows:
                answers.update((row[0], _answer(row)) for row in rows)
        return answers

    def put_latency(self, key: str, place: str, latency_ms: float) -> None:
        """Keep how long something took in a place; the first time that was measured there stays."""
        self._connection.execute("INSERT OR IGNORE INTO latencies VALUES (?, ?, ?)", (key, place, latency_ms))

    def latencies(self, keys: Sequence[str], place: str) -> dict[str, float]:
        """How long what is kept under these keys took in a place, milliseconds; a key without a time is absent."""
        found: dict[str, float] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            batch = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(batch))
            query = f"SELECT key, latency_ms FROM latencies WHERE place = ? AND key IN ({marks})"  # noqa: S608 (marks)
            with closing(self._connection.execute(query, (place, *batch))) as rows:
                found.update(dict(rows))
        return found

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _answer(row: Row) -> StoredAnswer:
    _, text, finish_reason, input_tokens, cached, cache_write, output_tokens, usd, latency_ms, created, confidence = row
    usage = Usage(input_tokens, cached, cache_write, output_tokens)
    return StoredAnswer(text, finish_reason, usage, usd, latency_ms, created, confidence)


def stored_now(
    text: str, finish_reason: str, usage: Usage, usd: float, latency_ms: float, confidence: float | None = None
) -> StoredAnswer:
    """An answer received at this moment; half a character (a lone surrogate), which no file takes, is a ? in it."""
    text = text.encode(errors="replace").decode()
    return StoredAnswer(text, finish_reason, usage, usd, latency_ms, time.time(), confidence)
