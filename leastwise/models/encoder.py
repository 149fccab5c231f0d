"""Texts as vectors by an embedding model, each embedded once and kept; their tokens' vectors too. It searches
nothing.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache as remember
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlparse

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.models import machine
from leastwise.models.machine import THREADS, torch_threads
from leastwise.stores.sqlite_file import check_whole, write_ahead

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_CHUNK_TEXTS = 1024  # the most embedding work a crash can lose
_TEXTS_AT_ONCE = {"cpu": 64, "cuda": 1024}  # tried first; fewer where they do not fit


_LOADING = threading.Lock()  # while weights are read, torch makes whatever any thread makes of their type


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


OnEmbedded = Callable[[int, int], None]  # (texts embedded so far, texts in all)
Vectors = npt.NDArray[np.float32]


def embed(
    texts: Sequence[str],
    encoder: Path,
    *,
    threads: int = THREADS,
    cache: Path | None = None,
    on_chunk: OnEmbedded | None = None,
) -> Vectors:
    """Unit-length vectors of `texts`: float32, shape (n, d), in the order given; n >= 1.

    With a `cache` directory each distinct text is embedded once per encoder, ever: vectors are kept under the encoder's
    hash and the text's, written every 1,024 texts, when `on_chunk` is told. Last digits of a vector may depend on the
    batch it was in (padding).
    """
    if not texts:
        raise BadInput("embed: no texts were given; give at least one")
    unique = list(dict.fromkeys(texts))
    vectors = _embed_cached(unique, encoder, threads, cache, on_chunk) if cache else _encode(unique, encoder, threads)
    place = {text: i for i, text in enumerate(unique)}
    return vectors[[place[text] for text in texts]]


def _encode(texts: list[str], encoder: Path, threads: int) -> Vectors:
    # sentence-transformers itself sorts by length, so a batch carries little padding
    with _LOADING:
        model = _encoder_model(encoder, encoder_hash(encoder))
    most = _TEXTS_AT_ONCE[model.device.type]
    with torch_threads(threads):
        encoded = machine.fitting(
            "embeddings",
            most,
            lambda size: model.encode(texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False),
        )
    # bf16 rounds a unit vector to one of length 1 +- 0.4%; the search takes lengths for granted.
    return _unit(np.asarray(encoded, dtype=np.float32))


@dataclass(frozen=True)
class WithTokens:
    """A text as a unit vector, and as its tokens, shape (n,), each with a unit vector of its own, shape (n, d).

    Marks that an encoder puts around every text or fills it up with ([CLS], [SEP], [PAD]), and what it does not know
    ([UNK]), are no tokens of it.
    """

    vector: Vectors
    tokens: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float16]


def embed_tokens(texts: Sequence[str], encoder: Path, *, threads: int = THREADS) -> list[WithTokens]:
    """Each text with its tokens, in the order given; what is longer than the encoder reads is cut off there."""
    with _LOADING:
        model = _encoder_model(encoder, encoder_hash(encoder))
    with torch_threads(threads):
        encoded = machine.fitting(
            "embeddings",
            _TEXTS_AT_ONCE[model.device.type],
            lambda size: model.encode(list(texts), batch_size=size, output_value=None, show_progress_bar=False),
        )
    marks = np.asarray(model.tokenizer.all_special_ids)
    return [_with_tokens(each, marks) for each in cast("list[Mapping[str, torch.Tensor]]", encoded)]


def _with_tokens(encoded: Mapping[str, torch.Tensor], marks: npt.NDArray[np.integer]) -> WithTokens:
    vector = _unit(encoded["sentence_embedding"].float().cpu().numpy())
    vectors = encoded["token_embeddings"].float().cpu().numpy()
    tokens = encoded["input_ids"].cpu().numpy()[: len(vectors)]
    own = ~np.isin(tokens, marks)
    return WithTokens(vector, tokens[own].astype(np.int32), _unit(vectors[own]).astype(np.float16))


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def token_ids(texts: Sequence[str], encoder: Path) -> list[npt.NDArray[np.int32]]:
    """The tokens of each text as `embed_tokens` has them, without their vectors."""
    with _LOADING:
        model = _encoder_model(encoder, encoder_hash(encoder))
    most = model.max_seq_length - model.tokenizer.num_special_tokens_to_add()
    read = model.tokenizer(list(texts), truncation=True, max_length=most, add_special_tokens=False, padding=False)
    marks = model.tokenizer.all_special_ids
    return [np.asarray([token for token in each if token not in marks], np.int32) for each in read["input_ids"]]


@remember
def _encoder_model(encoder: Path, _content: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(
        str(encoder),
        device=str(machine.device_here()),
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": machine.native_dtype()},
    )


def _embed_cached(texts: list[str], encoder: Path, threads: int, cache: Path, on_chunk: OnEmbedded | None) -> Vectors:
    cache.mkdir(parents=True, exist_ok=True)
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    precision = str(machine.native_dtype()).removeprefix("torch.")
    file = cache / f"embeddings-{encoder_hash(encoder)[:16]}-{precision}.sqlite"
    check_whole(file)
    with closing(sqlite3.connect(file, timeout=60)) as store:
        write_ahead(store)
        store.execute("CREATE TABLE IF NOT EXISTS embedding (text_hash BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        vectors = _stored_vectors(store, keys)
        missing = sorted((i for i in range(len(texts)) if keys[i] not in vectors), key=lambda i: len(texts[i]))
        for start in range(0, len(missing), _CHUNK_TEXTS):
            chunk = missing[start : start + _CHUNK_TEXTS]
            new = zip((keys[i] for i in chunk), _encode([texts[i] for i in chunk], encoder, threads), strict=True)
            vectors.update(new)
            with store:
                rows = [(keys[i], vectors[keys[i]].tobytes()) for i in chunk]
                store.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?)", rows)
            if on_chunk:
                on_chunk(min(start + _CHUNK_TEXTS, len(missing)), len(missing))
    return np.stack([vectors[key] for key in keys])


def _stored_vectors(store: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Vectors]:
    stored: dict[bytes, Vectors] = {}
    for start in range(0, len(keys), 500):  # below SQLite's oldest limit of 999 parameters
        part = keys[start : start + 500]
        query = f"SELECT text_hash, vector FROM embedding WHERE text_hash IN ({','.join('?' * len(part))})"  # noqa: S608
        stored.update({key: np.frombuffer(vector, dtype=np.float32) for key, vector in store.execute(query, part)})
    return stored
