"""The answers of several machines, in Postgres, under the same keys as in a file.

An answer goes into the next block of its process (see `writer.py`), never after the settlement of its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from leastwise.stores.answer_store import StoredAnswer
from leastwise.stores.shared.block import Kept, Timed
from leastwise.stores.shared.connection import Session
from leastwise.stores.shared.writer import Writer
from leastwise.use_case.price import Usage

ANSWERS = """
SELECT answers.key, text, finish_reason, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
    CASE WHEN %s::text IS NULL THEN answers.latency_ms ELSE latencies.latency_ms END, created, confidence, usage_known,
    raw, answered_by
FROM answers LEFT JOIN latencies ON latencies.key = answers.key AND place = %s WHERE answers.key = ANY(%s)
"""
LATENCIES = "SELECT key, latency_ms FROM latencies WHERE place = %s AND key = ANY(%s)"


class SharedAnswers:
    """A durable map from `answer_key(...)` to `StoredAnswer` for every machine; the first answer under a key stays."""

    def __init__(self, writer: Writer, reader: Session) -> None:
        self._writer, self._reader = writer, reader

    def put(self, key: str, answer: StoredAnswer, place: str | None = None) -> None:
        """Keep an answer with the next block, before its call is settled; a later one under the key is ignored."""
        timed = [] if place is None or answer.latency_ms is None else [Timed(key, place, answer.latency_ms)]
        self._writer.add(Kept(key, replace(answer, usage=answer.usage)), *timed)

    def get_many(self, keys: Sequence[str], place: str | None = None) -> dict[str, StoredAnswer]:
        """The stored answers among `keys`, with the latency they have in `place`; a key without an answer is absent."""
        if not keys:
            return {}
        self.flush()
        rows = self._reader.patiently(lambda each: each.execute(ANSWERS, (place, place, list(keys))).fetchall())
        return {str(row[0]): _answer(row) for row in rows}

    def put_latency(self, key: str, place: str, latency_ms: float) -> None:
        """Keep how long something took in a place; the first time that was measured there stays."""
        self._writer.add(Timed(key, place, latency_ms))

    def latencies(self, keys: Sequence[str], place: str) -> dict[str, float]:
        """How long what is kept under these keys took in a place, milliseconds; a key without a time is absent."""
        if not keys:
            return {}
        self.flush()
        rows = self._reader.patiently(lambda each: each.execute(LATENCIES, (place, list(keys))).fetchall())
        return {str(key): cast("float", latency_ms) for key, latency_ms in rows}

    def flush(self) -> None:
        """Wait until everything that was put is committed."""
        self._writer.flush()

    def close(self) -> None:
        """As `flush`: the connection is kept for whoever opens the state next."""
        self.flush()

    def __len__(self) -> int:
        self.flush()
        (row,) = self._reader.patiently(lambda each: each.execute("SELECT count(*) FROM answers").fetchall())
        return cast("int", row[0])


def _answer(row: tuple[object, ...]) -> StoredAnswer:
    _, text, finish_reason, *tokens, latency_ms, created, confidence, usage_known, raw, answered_by = row
    return StoredAnswer(
        bytes(cast("bytes", text)).decode(),
        str(finish_reason),
        Usage(*cast("list[int]", tokens)),
        cast("float | None", latency_ms),
        cast("float", created),
        cast("float | None", confidence),
        bool(usage_known),
        bytes(cast("bytes", raw)).decode(),
        bytes(cast("bytes", answered_by)).decode(),
    )
