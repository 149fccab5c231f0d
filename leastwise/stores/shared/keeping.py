"""Answers and times of a block written in bulk: the first under a key stays. It commits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from leastwise.stores.shared.block import Kept, Timed
from leastwise.stores.shared.connection import Database

KEEP = """
INSERT INTO answers (key, text, finish_reason, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
    latency_ms, created, confidence, usage_known, raw, answered_by)
SELECT * FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::float8[], %s::float8[], %s::float8[], %s::boolean[], %s::bytea[], %s::bytea[])
ORDER BY 1 ON CONFLICT DO NOTHING
"""
TIME = """
INSERT INTO latencies SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[]) ORDER BY 1, 2 ON CONFLICT DO NOTHING
"""


def keep(database: Database, kept: Sequence[Kept], timed: Sequence[Timed]) -> None:
    """Keep them, in the order of their keys, so that of two processes neither waits for the other in a circle."""
    if kept:
        rows = [_row(each) for each in kept]
        database.execute(KEEP, [list(column) for column in zip(*rows, strict=True)])
    if timed:
        database.execute(TIME, [list(column) for column in zip(*(astuple(each) for each in timed), strict=True)])


def _row(kept: Kept) -> tuple[object, ...]:
    answer = kept.answer
    return (
        kept.key,
        answer.text.encode(),
        answer.finish_reason,
        *astuple(answer.usage),
        answer.latency_ms or 0.0,
        answer.created_unix_s,
        answer.confidence,
        answer.usage_known,
        answer.raw.encode(errors="replace"),
        answer.answered_by.encode(errors="replace"),
    )
