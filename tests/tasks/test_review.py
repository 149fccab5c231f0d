"""Review by people: a queue of a stage's answers in MLflow, and what they said as tables a use case can name."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Expectation, Feedback
from mlflow.genai import label_schemas, review_queues

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.record.review.queue import Said
from leastwise.record.review.traces import ROW
from leastwise.record.stage_run import StageRun
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase
from tasks.review.answers import review_answers
from tasks.review.tables import GRADED, LABELS, write_tables
from tests.conversations import conversations
from tests.record.review.test_showing import PASSED, PROMPTED, row, traces_of
from tests.tasks_of_each_kind import RECORD, TEXT
from tests.workspaces import log_stage


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


ROWS = [row(0), row(1, answer="no", score=0.0), row(2), row(3, answer=None, score=None, error="503")]


def judged(work: Workspace) -> StageRun:
    return log_stage(work, PROMPTED, PASSED, rows=ROWS)


def asked(work: Workspace, run: StageRun, folder: Path, which: str = "sample") -> Any:
    return review_answers.fn(str(folder / "case.yaml"), run.id, which)


def say(run: StageRun, row_id: str, name: str, value: Any, who: str, why: str | None = None) -> None:
    trace = next(each for each in traces_of(run) if each.info.tags[ROW] == row_id)
    source, kind = AssessmentSource(source_type="HUMAN", source_id=who), Feedback if name == "grade" else Expectation
    said = kind(name=name, value=value, source=source)
    said.rationale = why
    mlflow.log_assessment(trace.info.trace_id, said)


def done(run: StageRun, which: str, *rows: str) -> None:
    """Mark examples as done in a queue, as its page does."""
    queues = review_queues.list_review_queues(experiment_id=run.experiment_id)
    queue = next(each for each in queues if which in each.name)
    for trace in traces_of(run):
        if trace.info.tags[ROW] in rows:
            review_queues.set_review_queue_item_status(
                queue.queue_id, item_id=trace.info.trace_id, status="complete", completed_by="ann"
            )


def lines(home: Path, name: str) -> list[dict[str, Any]]:
    (file,) = (home / "reviews").rglob(name)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_queue_is_made_once_and_what_people_say_comes_back_with_who_and_when(
    work: Workspace, home: Path, tmp_path: Path
) -> None:
    run = judged(work)
    ending = asked(work, run, tmp_path)
    assert ending.outcome == "asked" and "3 examples are in the queue" in ending.reason and ending.exit_status == 0
    (queue,) = review_queues.list_review_queues(experiment_id=run.experiment_id)
    assert len(review_queues.list_review_queue_items(queue.queue_id)) == 3, "what was lost has no answer to judge"
    names = {each.schema_id: each.name for each in label_schemas.list_label_schemas(run.experiment_id)}
    assert {names[each] for each in queue.schema_ids} == {"grade", "corrected_label"}
    say(run, "r0", "grade", True, "ann")
    say(run, "r1", "grade", False, "ann", "it says so twice")
    say(run, "r1", "grade", True, "ben")
    say(run, "r1", "corrected_label", "no", "ben")
    done(run, "sample", "r0", "r1")
    ending = asked(work, run, tmp_path)
    assert ending.outcome == "reviewed" and "2 were graded" in ending.reason and "1 labels were" in ending.reason
    assert "correct them in data.gate" in ending.reason, "as a training row it would be refused"
    first, second = lines(home, GRADED)
    assert (first["id"], first["answer"], first["grade"], first["label"], first["who"]) == (
        "r0",
        "yes",
        1,
        "yes",
        "ann",
    )
    assert (second["grade"], second["who"], second["why"]) == (0.5, "ann, ben", "it says so twice")
    (label,) = lines(home, LABELS)
    assert {name: label[name] for name in ("id", "text", "label", "was", "set", "who")} == {
        "id": "r1",
        "text": "text 1",
        "label": "no",
        "was": "yes",
        "set": "gate",
        "who": "ben",
    }
    assert label["when"].endswith("+00:00")
    assert len(review_queues.list_review_queues(experiment_id=run.experiment_id)) == 1
    assert {each.path for each in run.client.list_artifacts(run.id, "review")} == {
        f"review/{GRADED}",
        f"review/{LABELS}",
    }
    assert work.use_case.name in str(home / "reviews" / work.use_case.name)


def test_the_grades_are_a_table_that_data_graded_can_name(work: Workspace, home: Path, tmp_path: Path) -> None:
    run = judged(work)
    asked(work, run, tmp_path)
    say(run, "r2", "grade", True, "ann")
    done(run, "sample", "r2")
    asked(work, run, tmp_path)
    (file,) = (home / "reviews").rglob(GRADED)
    data = work.use_case.data.model_copy(update={"graded": str(file)})
    graded = Tables(work.use_case.model_copy(update={"data": data})).need("graded")
    assert graded[["id", "text", "answer", "grade", "label"]].to_dict("records") == [
        {"id": "r2", "text": "text 2", "answer": "yes", "grade": 1.0, "label": "yes"}
    ]


def test_a_grade_that_was_not_given_to_the_sample_is_no_row_of_data_graded(work: Workspace, tmp_path: Path) -> None:
    """A judge's error on answers that were picked for being wrong is not its error."""
    run = judged(work)
    asked(work, run, tmp_path)
    assert asked(work, run, tmp_path, "wrong").outcome == "asked"
    say(run, "r1", "grade", False, "ann")
    done(run, "wrong", "r1")
    ending = asked(work, run, tmp_path)
    assert ending.outcome == "asked" and "were graded" not in ending.reason
    done(run, "sample", "r1")
    assert "1 were graded" in asked(work, run, tmp_path).reason


def test_only_what_was_answered_wrong_can_be_asked_about(work: Workspace, tmp_path: Path) -> None:
    run = judged(work)
    ending = asked(work, run, tmp_path, "wrong")
    assert "1 examples are in the queue 'prompt · wrong" in ending.reason
    with pytest.raises(BadInput, match="which: 'worst' is none of sample, wrong"):
        asked(work, run, tmp_path, "worst")


def test_a_run_without_judged_answers_is_refused_with_what_to_name(work: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no judged answers"):
        asked(work, work.run.open_stage("rag", "key"), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="has no winner"):
        asked(work, work.run, tmp_path)  # type: ignore[arg-type]


def said(row_id: str = "r0", corrected: str = "", who: str = "ann", **fields: Any) -> Said:
    usual: dict[str, Any] = {"answer": "a", "expected": "yes", "set": "gate", "sampled": True, "grade": None, "why": ""}
    rest = {"row_id": row_id, "text": f"text {row_id}", "corrected": corrected, "who": who}
    return Said(**{**usual, **rest, "when": "2026-11-26T18:00:00+00:00", **fields})


def test_labels_on_which_people_disagree_or_that_the_task_does_not_have_are_left_out_aloud(
    work: Workspace, tmp_path: Path
) -> None:
    every = [said(corrected="no"), said(corrected="yes", who="ben"), said("r1", "maybe"), said("r2", " No. ")]
    written = write_tables(work.use_case, every, tmp_path)
    assert [json.loads(line)["label"] for line in written.labels_file.read_text().splitlines()] == ["no"]
    assert written.left_out == (
        "the label of r0 was left out: people disagree",
        "the label of r1 was left out: 'maybe' is not in the format",
    )


def test_what_people_took_back_is_in_no_table_any_longer(work: Workspace, home: Path, tmp_path: Path) -> None:
    run = judged(work)
    asked(work, run, tmp_path)
    say(run, "r0", "grade", True, "ann")
    say(run, "r1", "corrected_label", "no", "ann")
    done(run, "sample", "r0", "r1")
    asked(work, run, tmp_path)
    assert lines(home, GRADED) and lines(home, LABELS)
    for trace in traces_of(run):
        for each in trace.info.assessments:
            if each.source.source_type == "HUMAN":
                mlflow.delete_assessment(trace.info.trace_id, each.assessment_id)
    assert asked(work, run, tmp_path).outcome == "asked"
    assert not list((home / "reviews").rglob("*.jsonl"))


@pytest.mark.parametrize("named", [{"label_column": "answer"}, {"label_column": "grade"}, {"text_column": "set"}])
def test_a_column_of_the_use_cases_own_is_never_taken_for_one_of_the_review(
    work: Workspace, tmp_path: Path, named: dict[str, str]
) -> None:
    """The answer that was graded is not the expected one, whatever the use case calls that."""
    fields = work.use_case.model_dump() | {"task": TEXT, "data": {"gate": "g"} | named}
    case = UseCase.model_validate(fields)
    written = write_tables(case, [said(grade=0.0, answer="wrong", expected="right", corrected="better")], tmp_path)
    data = case.data.model_copy(update={"graded": str(written.graded_file), "train": str(written.labels_file)})
    tables = Tables(case.model_copy(update={"data": data}))
    (graded,) = tables.need("graded").to_dict("records")
    assert (graded["answer"], graded["grade"], graded["text"]) == ("wrong", 0.0, "text r0")
    assert json.loads(graded["label"]) == ["right"]
    (labelled,) = tables.need("train").to_dict("records")
    assert (labelled["text"], json.loads(labelled["label"])) == ("text r0", ["better"])


@pytest.mark.parametrize(
    ("task", "given", "kept"), [(TEXT, "Hall 3", True), (RECORD, '{"name": "Rome"}', True), (RECORD, "Rome", False)]
)
def test_a_corrected_label_of_any_kind_of_task_can_be_read_again_as_a_table(
    work: Workspace, tmp_path: Path, task: Any, given: str, kept: bool
) -> None:
    fields = work.use_case.model_dump() | {"task": task, "data": {"gate": "g", "label_column": "right"}}
    case = UseCase.model_validate(fields)
    written = write_tables(case, [said(corrected=given, expected=None)], tmp_path)
    assert bool(written.labels) is kept
    if kept:
        data = case.data.model_copy(update={"train": str(written.labels_file)})
        (label,) = Tables(case.model_copy(update={"data": data})).need("train")["label"]
        assert json.loads(label) == ([given] if task is TEXT else json.loads(given))
