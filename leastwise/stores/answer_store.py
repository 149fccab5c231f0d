"""Keeps every answer a model gave, so that none is bought twice.

It does not call models, does not decide what an answer is worth, and never forgets: a stored answer keeps the usage it
had when it was bought, and its latency in the place (venue, concurrency) where it was measured; dollars are for whoever
knows today's price. Safe with several processes on one machine, not on a network file system.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from leastwise.stores.sqlite_file import open_wal, transaction
from leastwise.use_case.price import Usage

KEYS_PER_QUERY = 500
PAID_BY_CALL = "api"  # how the name of a place begins where calls are paid by the token

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, usd REAL NOT NULL, latency_ms REAL NOT NULL, created REAL NOT NULL, confidence REAL,
    usage_known INTEGER NOT NULL DEFAULT 1, raw TEXT NOT NULL DEFAULT '', answered_by TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS latencies (
    key TEXT NOT NULL, place TEXT NOT NULL, latency_ms REAL NOT NULL, PRIMARY KEY (key, place)
) WITHOUT ROWID
"""
ADDED = {  # to stores of earlier versions
    "confidence": "REAL",
    "usage_known": "INTEGER NOT NULL DEFAULT 1",
    "raw": "TEXT NOT NULL DEFAULT ''",
    "answered_by": "TEXT NOT NULL DEFAULT ''",
}
COLUMNS = (
    "key, text, finish_reason, input_tokens, cached_tokens, cache_write_tokens, output_tokens, usd, latency_ms, "
    "created, confidence, usage_known, raw, answered_by"
)
Row = tuple[str, str, str, int, int, int, int, float, float, float, float | None, int, str, str]  # as COLUMNS has it


@dataclass(frozen=True)
class StoredAnswer:
    """One complete answer as it was received.

    `latency_ms` is that of the call that bought it, None where it was not timed in the place that is asked about.
    `confidence` is the probability the model gave its own words, where that was asked for and the provider tells it.
    `usage` is nothing where it is not `usage_known`. `raw` is the body as received, where not all of it could be read.
    `answered_by` is the model that the response names; empty where it names none, or it was not kept yet.
    """

    text: str
    finish_reason: str
    usage: Usage
    latency_ms: float | None
    created_unix_s: float
    confidence: float | None = None
    usage_known: bool = True
    raw: str = ""
    answered_by: str = ""


def answer_key(**determinants: object) -> str:
    """SHA-256 (hex) of everything that determines an answer; the values must be JSON, the order does not matter."""
    text = json.dumps(determinants, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Answers(Protocol):
    """What was asked before, by key: a `ResponseStore`, one that machines share, or `NoAnswers` where none are kept."""

    def put(self, key: str, answer: StoredAnswer, place: str | None = None) -> None:
        """Keep an answer, and its latency as one of this place."""
        ...

    def get_many(self, keys: Sequence[str], place: str | None = None) -> dict[str, StoredAnswer]:
        """The answers that are there among these keys."""
        ...

    def put_latency(self, key: str, place: str, latency_ms: float) -> None:
        """Keep how long something took in a place."""
        ...

    def latencies(self, keys: Sequence[str], place: str) -> dict[str, float]:
        """How long what is kept under these keys took in a place, milliseconds."""
        ...


class NoAnswers:
    """Keeps nothing: in production every request is asked, unless a response cache that forgets stands in front."""

    def put(self, key: str, answer: StoredAnswer, place: str | None = None) -> None:
        """Nothing is kept."""

    def get_many(self, keys: Sequence[str], place: str | None = None) -> dict[str, StoredAnswer]:
        """Nothing is there."""
        return {}

    def put_latency(self, key: str, place: str, latency_ms: float) -> None:
        """Nothing is kept."""

    def latencies(self, keys: Sequence[str], place: str) -> dict[str, float]:
        """Nothing is there."""
        return {}


class ResponseStore:
    """A durable map from `answer_key(...)` to `StoredAnswer`; the first answer under a key stays."""

    def __init__(self, path: Path) -> None:
        self._connection = open_wal(path, SCHEMA)
        with transaction(self._connection):
            columns = {row[1] for row in self._connection.execute("PRAGMA table_info(answers)")}
            for column in ADDED.keys() - columns:
                self._connection.execute(f"ALTER TABLE answers ADD COLUMN {column} {ADDED[column]}")

    def put(self, key: str, answer: StoredAnswer, place: str | None = None) -> None:
        """Keep an answer; on return it survives the death of this process. A later answer under the key is ignored.

        `place` is where its latency was measured.
        """
        no_usd = 0.0  # earlier versions kept what was paid
        row = (key, answer.text, answer.finish_reason, *astuple(answer.usage), no_usd, answer.latency_ms or 0.0)
        marks = ",".join("?" * (COLUMNS.count(",") + 1))
        with transaction(self._connection):
            self._connection.execute(
                f"INSERT OR IGNORE INTO answers ({COLUMNS}) VALUES ({marks})",  # noqa: S608 (our own words)
                (
                    *row,
                    answer.created_unix_s,
                    answer.confidence,
                    int(answer.usage_known),
                    answer.raw,
                    answer.answered_by,
                ),
            )
            if place is not None and answer.latency_ms is not None:
                self.put_latency(key, place, answer.latency_ms)

    def get_many(self, keys: Sequence[str], place: str | None = None) -> dict[str, StoredAnswer]:
        """The stored answers among `keys`, with the latency they have in `place`; a key without an answer is absent."""
        answers: dict[str, StoredAnswer] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            batch = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(batch))
            query = f"SELECT {COLUMNS} FROM answers WHERE key IN ({marks})"  # noqa: S608 (our own words)
            with closing(self._connection.execute(query, batch)) as rows:
                answers.update((row[0], _answer(row)) for row in rows)
            if place is not None:
                self._put_in_place(answers, batch, marks, place)
        return answers

    def _put_in_place(self, answers: dict[str, StoredAnswer], batch: Sequence[str], marks: str, place: str) -> None:
        """Give each answer the latency of this place, or none.

        Answers of before places were kept were bought by the token, so in such a place they keep theirs.
        """
        query = f"SELECT key, place, latency_ms FROM latencies WHERE key IN ({marks})"  # noqa: S608 (our own words)
        timed: dict[str, dict[str, float]] = {}
        for key, where, latency_ms in self._connection.execute(query, batch):
            timed.setdefault(key, {})[where] = latency_ms
        for key in answers.keys() & set(batch):
            is_old = key not in timed and place.startswith(PAID_BY_CALL)
            latency_ms = answers[key].latency_ms if is_old else timed.get(key, {}).get(place)
            answers[key] = replace(answers[key], latency_ms=latency_ms)

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
    _, text, finish_reason, *tokens, _, latency_ms, created, confidence, usage_known, raw, answered_by = row
    usage = Usage(*tokens)
    # An earlier version took usage that was not told for none.
    is_known = bool(usage_known) and (usage != Usage() or not text)
    return StoredAnswer(text, finish_reason, usage, latency_ms, created, confidence, is_known, raw, answered_by)


def stored_now(
    text: str,
    finish_reason: str,
    usage: Usage | None,
    latency_ms: float,
    confidence: float | None = None,
    raw: str = "",
    answered_by: str = "",
) -> StoredAnswer:
    """An answer received at this moment; `usage` is None where it is not known. Half a character (a lone surrogate),
    which no file takes, is a ? in it.
    """
    known, whole = usage or Usage(), text.encode(errors="replace").decode()
    is_known, now = usage is not None, time.time()
    return StoredAnswer(whole, finish_reason, known, latency_ms, now, confidence, is_known, raw, answered_by)
