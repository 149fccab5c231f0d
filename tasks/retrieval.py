"""Embeds texts and finds the nearest stored ones: a cached encoder and a LanceDB index searched in process.

It does not judge retrieval (the flows do, with `recall_at_k` and `mean_reciprocal_rank`), does not chunk documents, and
searches exactly: no approximate vector index is built, which is right up to a few hundred thousand rows.
"""

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache as remember
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd

from leastwise.errors import BadInput
from leastwise.settings import SearchMode
from tasks import weights
from tasks.threads import torch_threads

Mode = SearchMode

_CHUNK_TEXTS = 1024  # the most embedding work a crash can lose
_FUSION_RANK = 60  # reciprocal rank fusion, Cormack, Clarke and Büttcher, SIGIR 2009
_SPARE_HITS = 16  # fetched beyond k, so that equal scores at the cut fall by id and not by thread


@dataclass(frozen=True)
class Hit:
    """One retrieved row; `score` is cosine (dense), BM25 or fused reciprocal ranks (hybrid): higher is nearer."""

    id: str
    text: str
    label: str | None
    score: float


def embedder_dir(uri: str) -> Path:
    """The local directory of the encoder that `package://NAME` or `file://PATH` names.

    Raises BadInput, naming the URI, for another scheme, a package that is not installed or a directory without a model.
    """
    parts = urlparse(uri)
    if parts.scheme == "package" and parts.netloc:
        return _checked(_package_dir(uri, parts.netloc), uri)
    if parts.scheme == "file" and parts.path:
        return _checked(Path(unquote(parts.path)), uri)
    raise BadInput(f"embedder {uri!r} cannot be read: name it package://NAME (installed) or file:///PATH (a directory)")


def _package_dir(uri: str, name: str) -> Path:
    spec = find_spec(re.sub(r"\W", "_", name))
    if spec is None or spec.origin is None:
        raise BadInput(f"embedder {uri!r}: package {name!r} is not installed; install it or use file:///PATH")
    return Path(spec.origin).parent / "model"


def _checked(encoder: Path, uri: str) -> Path:
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    missing = [name for name in needed if not (encoder / name).is_file()]
    if missing:
        raise BadInput(f"embedder {uri!r}: {encoder} has no {', '.join(missing)}; name a safetensors encoder directory")
    return encoder


def encoder_hash(encoder: Path) -> str:
    """SHA-256 over the names and contents of every file of an encoder directory (hex)."""
    files = sorted(path for path in encoder.rglob("*") if path.is_file())
    return _hash_of_files(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files), encoder)


@remember
def _hash_of_files(stats: tuple[tuple[str, int, int], ...], encoder: Path) -> str:
    digest = hashlib.sha256()
    for name, _size, _mtime in stats:
        digest.update(str(Path(name).relative_to(encoder)).encode())
        with Path(name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


OnEmbedded = Callable[[int, int], None]  # told how many texts are embedded, of how many


def embed(
    texts: Sequence[str], encoder: Path, *, threads: int = 2, cache: Path | None = None, on_chunk: OnEmbedded | None = None
) -> np.ndarray:
    """Unit-length vectors of `texts`: float32, shape (n, d), in the order given; n >= 1.

    With a `cache` directory each distinct text is embedded once per encoder, ever: vectors are kept under the encoder's
    hash and the text's, written every 1,024 texts, when `on_chunk` is told. Last digits of a vector may depend on the batch it was in (padding).
    """
    if not texts:
        raise BadInput("embed: no texts were given; give at least one")
    unique = list(dict.fromkeys(texts))
    vectors = _embed_cached(unique, encoder, threads, cache, on_chunk) if cache else _encode(unique, encoder, threads)
    place = {text: i for i, text in enumerate(unique)}
    return vectors[[place[text] for text in texts]]


def _encode(texts: list[str], encoder: Path, threads: int) -> np.ndarray:
    # sentence-transformers itself sorts by length, so a batch carries little padding
    model = _encoder_model(encoder, encoder_hash(encoder))
    with torch_threads(threads):
        encoded = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    # bf16 rounds a unit vector to one of length 1 +- 0.4%; the search takes lengths for granted.
    vectors = np.asarray(encoded, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@remember
def _encoder_model(encoder: Path, _content: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(
        str(encoder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": weights.native_dtype()},
    )


def _embed_cached(
    texts: list[str], encoder: Path, threads: int, cache: Path, on_chunk: OnEmbedded | None
) -> np.ndarray:
    cache.mkdir(parents=True, exist_ok=True)
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    precision = str(weights.native_dtype()).removeprefix("torch.")
    file = cache / f"embeddings-{encoder_hash(encoder)[:16]}-{precision}.sqlite"
    with closing(sqlite3.connect(file, timeout=60)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE IF NOT EXISTS embedding (text_hash BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        known = _stored_vectors(store, keys)
        missing = sorted((i for i in range(len(texts)) if keys[i] not in known), key=lambda i: len(texts[i]))
        for start in range(0, len(missing), _CHUNK_TEXTS):
            chunk = missing[start : start + _CHUNK_TEXTS]
            new = zip((keys[i] for i in chunk), _encode([texts[i] for i in chunk], encoder, threads), strict=True)
            known.update(new)
            with store:
                rows = [(keys[i], known[keys[i]].tobytes()) for i in chunk]
                store.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?)", rows)
            if on_chunk:
                on_chunk(min(start + _CHUNK_TEXTS, len(missing)), len(missing))
    return np.stack([known[key] for key in keys])


def _stored_vectors(store: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, np.ndarray]:
    known = {}
    for start in range(0, len(keys), 500):  # below SQLite's oldest limit of 999 parameters
        part = keys[start : start + 500]
        query = f"SELECT text_hash, vector FROM embedding WHERE text_hash IN ({','.join('?' * len(part))})"  # noqa: S608
        known.update({key: np.frombuffer(vector, dtype=np.float32) for key, vector in store.execute(query, part)})
    return known


@dataclass(frozen=True)
class Index:
    """A searchable, immutable set of rows; `key` names exactly these rows under exactly this encoder."""

    uri: str
    key: str
    rows: int
    encoder: Path
    threads: int = 2
    cache: Path | None = None

    @cached_property
    def _table(self) -> Any:
        import lancedb

        return lancedb.connect(self.uri).open_table(self.key)

    def search(
        self, texts: Sequence[str], k: int, mode: Mode = "dense", *, exclude_ids: Sequence[str | None] | None = None
    ) -> list[list[Hit]]:
        """The `k` nearest rows of each text, nearest first, ties by id; bm25 finds fewer where few rows share a word.

        `exclude_ids` holds one id per text, the row that must not be found for it (a labelled example's own row).
        """
        if k < 1 or mode not in get_args(Mode):
            raise BadInput(f"search: k={k}, mode={mode!r}; k must be at least 1 and mode one of {get_args(Mode)}")
        excluded = list(exclude_ids) if exclude_ids is not None else [None] * len(texts)
        if len(excluded) != len(texts):
            raise BadInput(f"search: {len(excluded)} exclude_ids for {len(texts)} texts; give one (or None) per text")
        found = {"dense": self._dense, "bm25": self._bm25, "hybrid": self._hybrid}[mode](list(texts), k)
        return [[hit for hit in hits if hit.id != own][:k] for hits, own in zip(found, excluded, strict=True)]

    def _dense(self, texts: list[str], k: int) -> list[list[Hit]]:
        vectors = embed(texts, self.encoder, threads=self.threads, cache=self.cache)
        return [self._nearest(vector, k) for vector in vectors]

    def _nearest(self, vector: np.ndarray, k: int) -> list[Hit]:
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        return _hits(query.limit(k + _SPARE_HITS), "_distance", lambda distance: 1.0 - distance)

    def _bm25(self, texts: list[str], k: int) -> list[list[Hit]]:
        from lancedb.query import MatchQuery

        searches = (self._table.search(MatchQuery(text, "text"), query_type="fts") for text in texts)
        return [_hits(search.limit(k + _SPARE_HITS), "_score", float) for search in searches]

    def _hybrid(self, texts: list[str], k: int) -> list[list[Hit]]:
        # LanceDB's own hybrid query embeds and searches one text at a time and orders equal ranks arbitrarily
        return [_fused(dense, words) for dense, words in zip(self._dense(texts, k), self._bm25(texts, k), strict=True)]


def build_index(
    rows: pd.DataFrame, encoder: Path, out_dir: Path | str, *, threads: int = 2, cache: Path | None = None
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
    table = database.open_table(index.key)
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


def recall_at_k(found: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold], k: int) -> float:
    """Share of searches with a gold id among the first `k` hits, in [0, 1]; of several gold ids one is enough."""
    return float(np.mean([rank <= k for rank in gold_ranks(found, gold_ids)]))


def mean_reciprocal_rank(found: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> float:
    """Mean over searches of 1 / rank of the first gold id, 0 where none was found, in [0, 1]."""
    return float(np.mean(1.0 / np.asarray(gold_ranks(found, gold_ids))))


def gold_ranks(found: Sequence[Sequence[Hit]], gold_ids: Sequence[Gold]) -> list[float]:
    """Rank of the first gold id in each search, from 1; infinity where none was found."""
    wanted = [{gold} if isinstance(gold, str) else set(gold) for gold in gold_ids]
    return [
        next((float(rank) for rank, hit in enumerate(hits, 1) if hit.id in gold), np.inf)
        for hits, gold in zip(found, wanted, strict=True)
    ]


def search_ms(index: Index, texts: Sequence[str], k: int, mode: Mode = "dense") -> np.ndarray:
    """Milliseconds of each text searched alone and embedded afresh, shape (n,); a first, unmeasured search warms up.

    This is what retrieval adds to the latency of one answer.
    """
    fresh = Index(index.uri, index.key, index.rows, index.encoder, index.threads, cache=None)
    fresh.search(texts[:1], k, mode)
    return np.asarray([_timed_ms(lambda text=text: fresh.search([text], k, mode)) for text in texts])


def _timed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000.0
