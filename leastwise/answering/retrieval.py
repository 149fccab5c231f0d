"""Finds the nearest stored texts: a LanceDB index searched in process.

It does not judge retrieval (`recall_at_k` and `mean_reciprocal_rank` do, for whoever has gold), does not chunk
documents, and searches exactly: no approximate vector index is built, which is right up to a few hundred thousand rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Retriever
from leastwise.models.encoder import embed, encoder_hash
from leastwise.models.machine import THREADS
from leastwise.rows.question import Question
from leastwise.stores.answer_store import Answers, answer_key
from leastwise.use_case.settings import SearchMode

if TYPE_CHECKING:
    import pandas as pd

RETRIEVAL = "retrieval"  # the place the latencies of searches are kept under
_FUSION_RANK = 60  # reciprocal rank fusion, Cormack, Clarke and Büttcher, SIGIR 2009
_SPARE_HITS = 16  # fetched beyond k, so that equal scores at the cut fall by id and not by thread


@dataclass(frozen=True)
class Hit:
    """One retrieved row; `score` is cosine (dense), BM25 or fused reciprocal ranks (hybrid): higher is nearer."""

    id: str
    text: str
    label: str | None
    score: float


@dataclass(frozen=True)
class Index:
    """A searchable, immutable set of rows; `key` names exactly these rows under exactly this encoder."""

    uri: str
    key: str
    rows: int
    encoder: Path
    threads: int = THREADS
    cache: Path | None = None

    @cached_property
    def _table(self) -> Any:
        import lancedb

        return lancedb.connect(self.uri).open_table(self.key)

    def search(self, texts: Sequence[str], k: int, mode: SearchMode = "dense") -> list[list[Hit]]:
        """The `k` nearest rows of each text, nearest first, ties by id; bm25 finds fewer where few share a word."""
        if k < 1 or mode not in get_args(SearchMode):
            raise BadInput(f"search: k={k}, mode={mode!r}; k must be at least 1 and mode one of {get_args(SearchMode)}")
        vectors: Sequence[np.ndarray | None] = [None] * len(texts)
        if mode != "bm25" and texts:
            vectors = list(embed(texts, self.encoder, threads=self.threads, cache=self.cache))
        return [self.nearest(text, vector, k, mode) for text, vector in zip(texts, vectors, strict=True)]

    def nearest(self, text: str, vector: np.ndarray | None, k: int, mode: SearchMode) -> list[Hit]:
        """The `k` nearest rows of one text whose `vector` is known (bm25 needs none), nearest first, ties by id."""
        # LanceDB's own hybrid query embeds and searches one text at a time and orders equal ranks arbitrarily
        ways = {"dense": (self._dense,), "bm25": (self._bm25,), "hybrid": (self._dense, self._bm25)}[mode]
        rankings = [way(text, vector, k) for way in ways]
        return (_fused(*rankings) if len(rankings) > 1 else rankings[0])[:k]

    def _dense(self, _text: str, vector: np.ndarray | None, k: int) -> list[Hit]:
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        return _hits(query.limit(k + _SPARE_HITS), "_distance", lambda distance: 1.0 - distance)

    def _bm25(self, text: str, _vector: np.ndarray | None, k: int) -> list[Hit]:
        from lancedb.query import MatchQuery

        query = MatchQuery(text, "text")  # type: ignore[call-arg]  # its defaults are hidden
        return _hits(self._table.search(query, query_type="fts").limit(k + _SPARE_HITS), "_score", float)


def build_index(
    rows: pd.DataFrame, encoder: Path, out_dir: Path | str, *, threads: int = THREADS, cache: Path | None = None
) -> Index:
    """Index `rows` (columns id, text, and label where there is one) under `out_dir`, a directory or an s3:// URI.

    The index is kept under a hash of the rows and the encoder: the same rows and encoder reuse it, and an index that a
    crash left unfinished is built again. Raises BadInput for missing columns, no rows, duplicate ids or empty text.
    """
    import lancedb

    _check_rows(rows)
    index = Index(str(out_dir), index_key(rows, encoder), len(rows), encoder, threads, cache)
    database = lancedb.connect(index.uri)
    if not _is_finished(database, index):
        vectors = embed(rows["text"].tolist(), encoder, threads=threads, cache=cache)
        _write(database, index.key, rows, vectors)
    return index


def index_key(rows: pd.DataFrame, encoder: Path) -> str:
    """The name of an index: 24 hex digits that change with any id, text, label, the rows' order or an encoder file."""
    columns = [name for name in ("id", "text", "label") if name in rows]
    content = json.dumps([encoder_hash(encoder), columns, rows[columns].astype(object).values.tolist()], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _check_rows(rows: pd.DataFrame) -> None:
    if missing := {"id", "text"} - set(rows.columns):
        raise BadInput(f"index rows: column {', '.join(sorted(missing))} is missing; it has {', '.join(rows.columns)}")
    if rows.empty:
        raise BadInput("index rows: there are none; give at least one row to retrieve")
    if rows["id"].duplicated().any():
        raise BadInput(f"index rows: id {rows['id'][rows['id'].duplicated()].iloc[0]!r} occurs twice; make ids unique")
    blank = rows["text"].isna() | (rows["text"].astype(str).str.strip() == "")
    if blank.any():
        raise BadInput(f"index rows: row {rows['id'][blank].iloc[0]!r} has no text; fill it or drop it")


def _is_finished(database: Any, index: Index) -> bool:
    if index.key not in database.list_tables().tables:
        return False
    try:
        table = database.open_table(index.key)
    except ValueError:  # a folder without a version: its first writing was cut short
        return False
    except RuntimeError:  # a damaged file, over which nothing can be written
        database.drop_table(index.key)
        return False
    return table.count_rows() == index.rows and len(table.list_indices()) == 1


def _write(database: Any, key: str, rows: pd.DataFrame, vectors: np.ndarray) -> None:
    import pyarrow as pa
    from lancedb.index import FTS

    label = rows["label"] if "label" in rows else [None] * len(rows)
    strings = {name: pa.array(column, pa.string()) for name, column in (("text", rows["text"]), ("label", label))}
    vector = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    data = pa.table({"id": pa.array(rows["id"].astype(str), pa.string()), **strings, "vector": vector})
    table = database.create_table(key, data, mode="overwrite")
    table.create_index("text", config=FTS(num_workers=1))  # written last: its presence marks the table as finished


def _hits(query: Any, column: str, score: Callable[[float], float]) -> list[Hit]:
    rows = query.select(["id", "text", "label", column]).to_list()
    hits = [Hit(row["id"], row["text"], row["label"], round(score(row[column]), 6)) for row in rows]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _fused(*rankings: list[Hit]) -> list[Hit]:
    hits = {hit.id: hit for ranking in rankings for hit in ranking}
    score = dict.fromkeys(hits, 0.0)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            score[hit.id] += 1.0 / (_FUSION_RANK + rank)
    fused = [Hit(hit.id, hit.text, hit.label, round(score[hit.id], 6)) for hit in hits.values()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.id))


Gold = str | Collection[str]  # the id of the row that answers a search, or the ids of several, each of which does


def recall_at_k(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold], k: int) -> float:
    """Share of searches with a gold id among the first `k` hits, in [0, 1]; of several gold ids one is enough."""
    return float(np.mean([rank <= k for rank in gold_ranks(searches, gold_ids)]))


def mean_reciprocal_rank(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> float:
    """Mean over searches of 1 / rank of the first gold id, 0 where none was found, in [0, 1]."""
    return float(np.mean(1.0 / np.asarray(gold_ranks(searches, gold_ids))))


def gold_ranks(searches: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> list[float]:
    """Rank of the first gold id in each search, from 1; infinity where none was found."""
    wanted = [{gold} if isinstance(gold, str) else set(gold) for gold in gold_ids]
    return [
        next((float(rank) for rank, hit in enumerate(hits, 1) if hit.id in gold), np.inf)
        for hits, gold in zip(searches, wanted, strict=True)
    ]


class Retrieving(Protocol):
    """What looks up stored texts, and keeps how long that took."""

    @property
    def answers(self) -> Answers:
        """What was asked before."""
        ...

    def index(self, table: str) -> Index:
        """The index of the examples (`train`) or the documents."""
        ...


_opened: dict[str, Index] = {}  # by place and content: hashing all rows again at every look took longer than searching


def open_index(key: str, rows: Callable[[], pd.DataFrame], encoder: Path, folder: Path, cache: Path) -> Index:
    """The index of some rows, built and opened once; `key` names their content."""
    place = content_key(str(folder), key, encoder_hash(encoder))
    known = _opened.get(place)
    if known is None or not Path(known.uri, f"{known.key}.lance").exists():  # the state was deleted
        _opened[place] = build_index(rows(), encoder, folder, threads=THREADS, cache=cache)
    return _opened[place]


def retrieval_ms(work: Retrieving, retriever: Retriever, texts: Sequence[str]) -> list[float]:
    """How long production takes to embed each of these texts and search for it, alone and never seen before;
    milliseconds.

    The first measurement of a text is kept, so that a rerun decides alike.
    """
    wanted = [("train", retriever.examples), ("documents", retriever.documents)]
    indexes = [(work.index(table), count) for table, count in wanted if count]
    if not indexes:
        return [0.0] * len(texts)
    about = [retriever.mode, *(f"{index.key} {count}" for index, count in indexes)]
    keys = [answer_key(retrieval=about, text=text) for text in texts]
    kept = work.answers.latencies(keys, RETRIEVAL)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
    if missing:
        _search_ms("warm up", indexes, retriever.mode)
    for key, text in missing.items():
        kept[key] = _search_ms(text, indexes, retriever.mode)
        work.answers.put_latency(key, RETRIEVAL, kept[key])
    return [kept[key] for key in keys]


def _search_ms(text: str, indexes: Sequence[tuple[Index, int]], mode: SearchMode) -> float:
    started, vector = time.perf_counter(), None
    if mode != "bm25":
        vector = embed([text], indexes[0][0].encoder, threads=THREADS)[0]
    for index, count in indexes:
        index.nearest(text, vector, count, mode)
    return (time.perf_counter() - started) * 1000


def retriever_of(question: Question) -> Retriever:
    """How a use case retrieves; its `retrieval.mode: auto` is chosen where the gold documents are looked at."""
    settings, data, embedder = question.use_case.retrieval, question.use_case.data, question.use_case.models.embedder
    assert embedder is not None
    hashes = [question.tables.hashes.get(name, "") for name in ("train", "documents")]
    return Retriever(
        embedder=embedder,
        index=content_key(embedder, *hashes),
        examples=settings.examples if data.train else 0,
        documents=settings.documents if data.documents else 0,
        mode="dense" if settings.mode == "auto" else settings.mode,
    )
