"""Late interaction: a text against a passage token by token, by the token vectors of the embedder at hand.

A passage's score is the mean, over the tokens of the text, of the highest cosine with any token of the passage (MaxSim,
Khattab and Zaharia, SIGIR 2020), each token weighed by how rare it is among the passages (the inverse frequency of
BM25, Robertson and Zaragoza 2009). Token vectors are kept beside the index, float16, so that a search encodes its text
alone. It finds nothing by itself: it orders what other searches found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.models.encoder import embed_tokens, token_ids

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

MOST_BYTES = 2 * 2**30  # of token vectors beside one index; more is a question of a disk, and of hours of embedding
_BYTES_A_NUMBER = 2  # float16
_TEXTS_A_BATCH = 256

Floats = npt.NDArray[np.floating]
Tokens = npt.NDArray[np.int32]
Place = tuple[str, int]  # id and part of a passage


@dataclass(frozen=True)
class Rarity:
    """How much a token counts among some passages: log(1 + (N - n + .5) / (n + .5)), n of N passages having it."""

    passages: int
    having: npt.NDArray[np.int64]  # by token

    @classmethod
    def among(cls, passages: Sequence[Tokens]) -> Rarity:
        """Of the tokens of these passages."""
        each = [np.unique(tokens) for tokens in passages]
        seen = np.concatenate(each) if each else np.zeros(0, dtype=np.int32)
        return cls(len(passages), np.bincount(seen) if len(seen) else np.zeros(0, dtype=np.int64))

    def of(self, tokens: Tokens) -> Floats:
        """Weights above 0, shape (n,); a token that no passage has weighs most."""
        known = tokens < len(self.having)
        having = np.where(known, self.having[np.where(known, tokens, 0)] if len(self.having) else 0, 0)
        return np.asarray(np.log1p((self.passages - having + 0.5) / (having + 0.5)))


def max_sim(text: Floats, weights: Floats, passage: Floats) -> float:
    """The weighed mean over the text's token vectors, shape (n, d), of the highest cosine with one of the passage's, in
    [-1, 1]; 0 where either has no token.
    """
    if not len(text) or not len(passage):
        return 0.0
    return float(weights @ (text @ passage.T).max(axis=1) / weights.sum())


class TokenVectors(Protocol):
    """Where the token vectors of passages are had."""

    @property
    def rarity(self) -> Rarity:
        """How rare each token is among all passages."""
        ...

    def of(self, passages: Sequence[tuple[Place, str]]) -> dict[Place, Floats]:
        """The token vectors of these passages."""
        ...


@dataclass
class EncodedTokens:
    """Of passages encoded as they are asked for, each once: to try late interaction before anything is stored."""

    texts: Sequence[str]
    encoder: Path
    threads: int
    _known: dict[Place, Floats] = field(default_factory=dict)

    @cached_property
    def rarity(self) -> Rarity:
        """By the tokens of all texts, which takes no model."""
        return Rarity.among(token_ids(self.texts, self.encoder))

    def of(self, passages: Sequence[tuple[Place, str]]) -> dict[Place, Floats]:
        """The token vectors of these passages."""
        new = [each for each in passages if each[0] not in self._known]
        for (place, _), encoded in zip(
            new, embed_tokens([text for _, text in new], self.encoder, threads=self.threads) if new else (), strict=True
        ):
            self._known[place] = encoded.vectors
        return {place: self._known[place] for place, _ in passages}


@dataclass
class StoredTokens:
    """Of passages encoded once: a LanceDB table with a row for each."""

    table: Any
    width: int

    @cached_property
    def rarity(self) -> Rarity:
        """By the tokens that are stored."""
        return Rarity.among([np.frombuffer(each, dtype=np.int32) for each in self._column("tokens")])

    @cached_property
    def _offsets(self) -> dict[Place, int]:
        return {place: at for at, place in enumerate(zip(self._column("id"), self._column("part"), strict=True))}

    def _column(self, name: str) -> list[Any]:
        return list(self.table.search().select([name]).to_arrow()[name].to_pylist())

    def of(self, passages: Sequence[tuple[Place, str]]) -> dict[Place, Floats]:
        """The token vectors of these passages."""
        if not passages:
            return {}
        offsets = [self._offsets[place] for place, _ in passages]
        found = self.table.take_offsets(offsets).select(["id", "part", "vectors"]).to_arrow()
        places = zip(found["id"].to_pylist(), found["part"].to_pylist(), strict=True)
        return {
            place: np.frombuffer(each.as_buffer(), dtype=np.float16).reshape(-1, self.width)
            for place, each in zip(places, found["vectors"], strict=True)
        }


def stored_bytes(texts: Sequence[str], encoder: Path, width: int) -> int:
    """How much the token vectors of these passages take, each vector having so many numbers."""
    return sum(map(len, token_ids(texts, encoder))) * width * _BYTES_A_NUMBER


def check_size(texts: Sequence[str], encoder: Path, width: int) -> int:
    """As `stored_bytes`; BadInput where that is more than is kept."""
    size = stored_bytes(texts, encoder, width)
    if size > MOST_BYTES:
        raise BadInput(
            f"retrieval.mode: late: token vectors of {len(texts):,} passages would take {size / 1e9:.1f} GB, and at "
            f"most {MOST_BYTES / 1e9:.1f} GB are kept; name dense or hybrid, or index fewer rows"
        )
    return size


def write(database: Any, name: str, passages: Sequence[tuple[Place, str]], encoder: Path, threads: int) -> None:
    """Store the token vectors of these passages; the table is there once it is whole."""
    import pyarrow as pa

    fields = [("id", pa.string()), ("part", pa.int32()), ("tokens", pa.binary()), ("vectors", pa.large_binary())]
    database.create_table(
        name, _batches(passages, encoder, threads, schema := pa.schema(fields)), schema=schema, mode="overwrite"
    )


def _batches(
    passages: Sequence[tuple[Place, str]], encoder: Path, threads: int, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    by_length = sorted(passages, key=lambda each: len(each[1]))  # so that a batch carries little padding
    for at in range(0, len(by_length), _TEXTS_A_BATCH):
        batch = by_length[at : at + _TEXTS_A_BATCH]
        encoded = embed_tokens([text for _, text in batch], encoder, threads=threads)
        rows = [
            {"id": row_id, "part": part, "tokens": each.tokens.tobytes(), "vectors": each.vectors.tobytes()}
            for ((row_id, part), _), each in zip(batch, encoded, strict=True)
        ]
        log.info(f"token vectors of {at + len(batch):,} of {len(by_length):,} passages")
        yield pa.RecordBatch.from_pylist(rows, schema=schema)
