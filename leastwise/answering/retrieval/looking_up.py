"""A candidate's retriever at work: which indexes it needs, how a use case retrieves, and how long a search takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leastwise.answering.retrieval.index import Index
from leastwise.content import content_key
from leastwise.ladder.candidate import Retriever
from leastwise.models.machine import THREADS
from leastwise.rows.question import Question
from leastwise.stores.answer_store import Answers, answer_key
from leastwise.use_case.settings import LATE_DENSE_SHARE

RETRIEVAL = "retrieval"  # the place the latencies of searches are kept under


class Retrieving(Protocol):
    """What looks up stored texts, and keeps how long that took."""

    @property
    def answers(self) -> Answers:
        """What was asked before."""
        ...

    def index(self, table: str, characters: int = 0) -> Index:
        """The index of the examples (`train`) or the documents; these in parts of so many characters, 0: whole."""
        ...


@dataclass(frozen=True)
class LookedUp:
    """A table that is looked up: which, in parts of how many characters (0: whole), and how many rows are shown."""

    table: str
    characters: int
    count: int

    @property
    def name(self) -> str:
        """What tells its index from that of the same table cut otherwise."""
        return f"{self.table} in parts of {self.characters}" if self.characters else self.table


def looked_up(retriever: Retriever) -> list[LookedUp]:
    """The tables of which a retriever shows any row; examples are never cut."""
    wanted = [
        LookedUp("train", 0, retriever.examples),
        LookedUp("documents", retriever.chunk_characters, retriever.documents),
    ]
    return [each for each in wanted if each.count]


def retrieval_ms(work: Retrieving, retriever: Retriever, texts: Sequence[str]) -> list[float]:
    """How long production takes to embed each of these texts and search for it, alone and never seen before;
    milliseconds.

    The first measurement of a text is kept, so that a rerun decides alike.
    """
    indexes = [(work.index(each.table, each.characters), each.count) for each in looked_up(retriever)]
    if not indexes:
        return [0.0] * len(texts)
    share = [] if retriever.dense_share is None else [f"{retriever.dense_share}"]
    about = [retriever.mode, *share, *(f"{index.key} {count}" for index, count in indexes)]
    keys = [answer_key(retrieval=about, text=text) for text in texts]
    kept = work.answers.latencies(keys, RETRIEVAL)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
    if missing:
        _search_ms("warm up", indexes, retriever)
    for key, text in missing.items():
        kept[key] = _search_ms(text, indexes, retriever)
        work.answers.put_latency(key, RETRIEVAL, kept[key])
    return [kept[key] for key in keys]


def _search_ms(text: str, indexes: Sequence[tuple[Index, int]], retriever: Retriever) -> float:
    started, first = time.perf_counter(), indexes[0][0]
    (query,) = Index(first.uri, first.key, first.rows, first.encoder, THREADS).queries([text], retriever.mode)
    for index, count in indexes:
        index.nearest(query, count, retriever.mode, retriever.dense_share)
    return (time.perf_counter() - started) * 1000


def retriever_of(question: Question) -> Retriever:
    """How a use case retrieves; its `retrieval.mode: auto` is chosen where the gold documents are looked at."""
    settings, data, embedder = question.use_case.retrieval, question.use_case.data, question.use_case.models.embedder
    assert embedder is not None
    hashes = [question.tables.hashes.get(name, "") for name in ("train", "documents")]
    is_late = settings.mode == "late" and settings.dense_share is None
    return Retriever(
        embedder=embedder,
        index=content_key(embedder, *hashes),
        examples=settings.examples if data.train else 0,
        documents=settings.documents if data.documents else 0,
        mode="dense" if settings.mode == "auto" else settings.mode,
        dense_share=LATE_DENSE_SHARE if is_late else settings.dense_share,
        chunk_characters=settings.chunk_characters if data.documents and settings.documents else 0,
    )
