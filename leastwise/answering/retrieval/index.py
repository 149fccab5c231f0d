"""Finds the nearest stored texts: a LanceDB index searched in process.

It does not judge retrieval (`recall_at_k` and `mean_reciprocal_rank` do, for whoever has gold), and searches exactly:
no approximate vector index is built, which is right up to a few hundred thousand rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from leastwise.answering.retrieval import late
from leastwise.answering.retrieval.hits import DIGITS, Hit, as_shares, by_ranks, in_order, weighed
from leastwise.errors import BadInput
from leastwise.models.encoder import WithTokens, embed, embed_tokens
from leastwise.models.machine import THREADS
from leastwise.use_case.settings import SearchMode

_SPARE_HITS = 16  # fetched beyond k, so that equal scores at the cut fall by id and not by thread
POOL = (
    64  # nearest by meaning, and by words, of which two scores are added: more changed nothing on questions about Perl
)


@dataclass(frozen=True)
class Query:
    """A text to search for, encoded as far as its mode needs it."""

    text: str
    vector: np.ndarray | None = None
    tokens: WithTokens | None = None


@dataclass(frozen=True)
class Index:
    """A searchable, immutable set of rows; `key` names exactly these rows under exactly this encoder.

    `is_packed`: what it lacks is not made, for it stands where it answers.
    """

    uri: str
    key: str
    rows: int
    encoder: Path
    threads: int = THREADS
    cache: Path | None = None
    is_packed: bool = False

    @cached_property
    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(self.uri)

    @cached_property
    def _table(self) -> Any:
        return self._database.open_table(self.key)

    @cached_property
    def _columns(self) -> list[str]:
        return [each for each in ("id", "text", "label", "part") if each in self._table.schema.names]

    @property
    def _width(self) -> int:
        return int(self._table.schema.field("vector").type.list_size)

    @property
    def tokens_key(self) -> str:
        """The name of the table with its token vectors."""
        return f"{self.key}-tokens"

    @cached_property
    def _passages(self) -> list[tuple[late.Place, str]]:
        found = self._table.search().select(self._columns).to_arrow().to_pylist()
        return [((each["id"], each.get("part") or 0), each["text"]) for each in found]

    @cached_property
    def tokens(self) -> late.TokenVectors:
        """Its token vectors, encoded and stored when they are first asked for; BadInput where they would take too
        much.
        """
        if not self._has_tokens:
            if self.is_packed:
                raise BadInput(f"{self.uri}: holds no token vectors, which late needs; register the winner again")
            self.check_tokens()
            late.write(self._database, self.tokens_key, self._passages, self.encoder, self.threads)
        return late.StoredTokens(self._database.open_table(self.tokens_key), self._width)

    def check_tokens(self) -> None:
        """BadInput where its token vectors would take more than is kept."""
        if not self._has_tokens:
            late.check_size([text for _, text in self._passages], self.encoder, self._width)

    def need_tokens(self) -> None:
        """Store its token vectors where that was not done yet; BadInput where they would take too much."""
        _ = self.tokens

    @property
    def _has_tokens(self) -> bool:
        if self.tokens_key not in self._database.list_tables().tables:
            return False
        try:
            return int(self._database.open_table(self.tokens_key).count_rows()) == self.rows
        except (ValueError, RuntimeError):  # cut short, or damaged
            self._database.drop_table(self.tokens_key)
            return False

    @cached_property
    def tokens_bytes(self) -> int:
        """How much its token vectors take, stored or not."""
        return late.stored_bytes([text for _, text in self._passages], self.encoder, self._width)

    def unstored(self) -> Index:
        """The same, its token vectors encoded as they are needed and kept in memory where they are not stored."""
        other = replace(self)
        if not self._has_tokens:
            texts = [text for _, text in self._passages]
            other.__dict__["tokens"] = late.EncodedTokens(texts, self.encoder, self.threads)
        return other

    def queries(self, texts: Sequence[str], mode: SearchMode) -> list[Query]:
        """Texts encoded as far as the mode needs it."""
        if mode == "bm25" or not texts:
            return [Query(text) for text in texts]
        if mode == "late":  # each alone, as production does: what it is padded to changes the last digits
            encoded = [embed_tokens([text], self.encoder, threads=self.threads)[0] for text in texts]
            return [Query(text, each.vector, each) for text, each in zip(texts, encoded, strict=True)]
        vectors = embed(texts, self.encoder, threads=self.threads, cache=self.cache)
        return [Query(text, vector) for text, vector in zip(texts, vectors, strict=True)]

    def search(
        self, texts: Sequence[str], k: int, mode: SearchMode = "dense", dense_share: float | None = None
    ) -> list[list[Hit]]:
        """The `k` nearest rows of each text, nearest first, ties by id; bm25 finds fewer where few share a word."""
        if k < 1 or mode not in get_args(SearchMode):
            raise BadInput(f"search: k={k}, mode={mode!r}; k must be at least 1 and mode one of {get_args(SearchMode)}")
        return [self.nearest(query, k, mode, dense_share) for query in self.queries(texts, mode)]

    def nearest(self, query: Query, k: int, mode: SearchMode, dense_share: float | None = None) -> list[Hit]:
        """The `k` nearest rows of one text that was encoded for this mode, nearest first, ties by id."""
        # LanceDB's own hybrid query embeds and searches one text at a time and orders equal ranks arbitrarily
        adds_scores = mode == "late" or dense_share is not None
        return Near(self, query, max(POOL, k) if adds_scores else k).ranked(k, mode, dense_share)

    def near_by_meaning(self, query: Query, most: int) -> list[Hit]:
        """The rows with the highest cosine."""
        found = self._table.search(query.vector, vector_column_name="vector").distance_type("cosine")
        return self._hits(found.limit(most + _SPARE_HITS), "_distance", lambda row: 1.0 - row["_distance"])

    def near_by_words(self, query: Query, most: int) -> tuple[list[Hit], list[Hit]]:
        """The rows with the highest BM25; and the same with their cosine in its place, where the query has a vector."""
        from lancedb.query import MatchQuery

        words = MatchQuery(query.text, "text")  # type: ignore[call-arg]  # its defaults are hidden
        has_vector = [] if query.vector is None else ["vector"]
        found = self._table.search(words, query_type="fts").limit(most + _SPARE_HITS)
        rows = found.select([*self._columns, *has_vector, "_score"]).to_list()
        by_meaning = (
            [] if query.vector is None else [_hit(row, float(np.dot(row["vector"], query.vector))) for row in rows]
        )
        return in_order([_hit(row, float(row["_score"])) for row in rows]), by_meaning

    def _hits(self, query: Any, column: str, score: Callable[[Any], float]) -> list[Hit]:
        rows = query.select([*self._columns, column]).to_list()
        return in_order([_hit(row, score(row)) for row in rows])


def _hit(row: Any, score: float) -> Hit:
    return Hit(row["id"], row["text"], row["label"], round(score, DIGITS), row.get("part") or 0)


@dataclass(frozen=True)
class Near:
    """What is near a text by meaning, and by words, `most` of each: every mode is an order of these."""

    index: Index
    query: Query
    most: int = POOL

    @cached_property
    def _dense(self) -> list[Hit]:
        return self.index.near_by_meaning(self.query, self.most)

    @cached_property
    def _by_words(self) -> tuple[list[Hit], list[Hit]]:
        return self.index.near_by_words(self.query, self.most)

    @cached_property
    def _pool(self) -> list[Hit]:
        """Both, scored by meaning."""
        return list({hit.place: hit for hit in [*self._by_words[1], *self._dense]}.values())

    @cached_property
    def _tokens(self) -> dict[late.Place, float]:
        asked, tokens = self.query.tokens, self.index.tokens
        assert asked is not None
        text, weights = asked.vectors.astype(np.float32), tokens.rarity.of(asked.tokens)
        vectors = tokens.of([(hit.place, hit.text) for hit in self._pool])
        return {place: late.max_sim(text, weights, each.astype(np.float32)) for place, each in vectors.items()}

    def ranked(self, k: int, mode: SearchMode, dense_share: float | None = None) -> list[Hit]:
        """The `k` nearest of them, `most` or fewer."""
        if mode == "dense":
            return self._dense[:k]
        if mode == "bm25":
            return self._by_words[0][:k]
        if dense_share is None:  # hybrid
            depth = k + _SPARE_HITS
            return by_ranks(self._dense[:depth], self._by_words[0][:depth])[:k]
        other = as_shares(self._by_words[0]) if mode == "hybrid" else self._tokens
        return weighed(self._pool, other, dense_share)[:k]
