"""A trained teacher and its students, through the steps of the distill flow, on a two-block Llama with a real
tokenizer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.models import weights
from leastwise.models.student_runtime import RUNTIMES
from leastwise.stores.tables import table_files
from leastwise.training import training
from leastwise.training.request import TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.training.stage_weights import pairs
from leastwise.training.teacher_labels import targets
from leastwise.use_case.prompts import short_prompt
from tasks import data
from tasks.distill import distill_student, distill_tries, label_with_teacher
from tasks.fine_tune import fine_tune_adapter
from tests.cities import CITIES, LABELS, RECORDS, open_cities
from tests.workspaces import log_stage, quality


def with_teacher(work: Workspace, tiny: Path, out: Path) -> Candidate:
    """A tuned candidate whose stage is logged as one that passed quality."""
    settings = TrainingSettings(
        batch_size=4,
        epochs=6,
        max_examples=240,
        learning_rate=1e-2,
        upper_blocks_share=1.0,
        rank=32,
        alpha=64,
        threads=1,
    )
    training.fine_tune(tiny, pairs(work, "train"), [], settings, out)
    made = Weights(kind="adapter", uri=out.as_uri(), revision=weights.directory_hash(out))
    teacher = Candidate(
        stage="fine_tune",
        model=tiny.as_uri(),
        revision=work.catalogue.revision(tiny.as_uri()),
        venue="managed",
        prompt=Prompt(system=short_prompt(work.use_case.task)),
        weights=made,
    )
    log_stage(work, teacher, quality(0.8, 1.0, margin=0.3))
    return teacher


@pytest.mark.soak
@pytest.mark.parametrize("teacher_share", [0.0, 0.3], ids=["answers", "probabilities too"])
def test_a_smaller_causal_model_learns_records_from_its_teacher_and_is_judged_like_any_candidate(
    tmp_path: Path, home: Path, tiny: Path, teacher_share: float
) -> None:
    student = {
        "kind": "causal",
        "blocks": 1,
        "max_examples": 720,
        "learning_rate": 0.01,
        "rank": 32,
        "teacher_share": teacher_share,
    }
    work = open_cities(tmp_path, tiny, RECORDS, student)
    with_teacher(work, tiny, tmp_path / "teacher")
    climb = work.run.id
    uri = label_with_teacher.fn(climb)
    data.validate_teacher_labels.fn(climb, uri)
    labelled = table_files.read_table(work.local(uri))
    assert "probabilities" not in labelled and len(labelled) > 50
    made = distill_student.fn(climb, uri)
    run = evaluate_stage(work, "distill", distill_tries(work, made)).run
    candidate = run.candidate()
    assert candidate.weights == made and made.kind == "adapter"
    assert json.loads((work.model_dir(candidate.model) / "config.json").read_text())["num_hidden_layers"] == 1
    report = TrainingReport.model_validate_json((work.handover.weights_dir(made) / "training.json").read_text())
    assert report.settings.teacher_share == teacher_share and report.train_losses[-1] < report.train_losses[0] / 8
    # By chance: 0.25. This teacher is unsure of every token, and who learns that is worse at writing a record
    # without a slip.
    assert run.figures["quality"] > (0.3 if teacher_share else 0.6)
    assert distill_student.fn(climb, uri) == made, "what is there is not trained again"


@pytest.mark.soak
def test_an_encoder_learns_the_probabilities_of_a_trained_teacher(tmp_path: Path, home: Path, tiny: Path) -> None:
    work = open_cities(tmp_path, tiny, LABELS, {"kind": "encoder", "epochs": 12})
    teacher = with_teacher(work, tiny, tmp_path / "teacher")
    climb = work.run.id
    uri = label_with_teacher.fn(climb)
    data.validate_teacher_labels.fn(climb, uri)
    labelled = table_files.read_table(work.local(uri))
    found = targets(labelled, CITIES)
    assert found.shape == (60, 4) and (found > 0).all()
    assert [CITIES[best] for best in found.argmax(axis=1)] == labelled["label"].tolist()
    with open_answerer(work, teacher) as answerer:
        greedy = [answer.text for answer in answerer.answer(labelled)]
    assert np.mean([text == label for text, label in zip(greedy, labelled["label"], strict=True)]) > 0.9
    made = distill_student.fn(climb, uri)
    about = json.loads((work.handover.weights_dir(made) / "labels.json").read_text())
    assert about["runtime"] in RUNTIMES and {each["runtime"] for each in about["measured"]} == set(RUNTIMES)
    assert work.run.again().figures["student.dev_accuracy"] > 0.8


def test_another_instruction_over_the_same_rows_trains_an_adapter_of_its_own(
    tmp_path: Path, home: Path, tiny: Path
) -> None:
    made = fine_tune_adapter.fn(open_cities(tmp_path, tiny, LABELS, {}).run.id)
    assert fine_tune_adapter.fn(open_cities(tmp_path, tiny, LABELS, {}).run.id) == made, (
        "the same question is not trained twice"
    )
    other = open_cities(tmp_path, tiny, LABELS | {"instruction": "Which city is it?"}, {})
    assert fine_tune_adapter.fn(other.run.id).uri != made.uri


@pytest.mark.parametrize(
    "student",
    [
        pytest.param({"kind": "encoder", "epochs": 1}, id="encoder", marks=pytest.mark.soak),
        pytest.param({"kind": "causal", "blocks": 1, "max_examples": 60}, id="causal"),
    ],
)
def test_other_rows_to_choose_by_make_a_student_of_their_own(
    tmp_path: Path, home: Path, tiny: Path, student: dict[str, Any]
) -> None:
    work = open_cities(tmp_path, tiny, LABELS, student)
    labels = str(tmp_path / "labels.parquet")
    table_files.write_table(work.tables.need("unlabelled").assign(label=[CITIES[n % 4] for n in range(60)]), labels)
    made = distill_student.fn(work.run.id, labels)
    assert distill_student.fn(work.run.id, labels) == made
    other = open_cities(tmp_path, tiny, LABELS, student, dev_rows=12)
    assert distill_student.fn(other.run.id, labels).uri != made.uri
