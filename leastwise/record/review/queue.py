"""Answers put before people in MLflow's review page, and what they said of them, with who and when.

People's word changes no verdict that stands: it is read into tables (see `tasks/review`), data like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from leastwise.metrics.task_metric import is_right_or_wrong
from leastwise.record.review.showing import rows_of
from leastwise.record.review.traces import Example, Origin, examples_of
from leastwise.record.stage_run import StageRun
from leastwise.use_case.task import Task

if TYPE_CHECKING:
    from mlflow.entities import Assessment
    from mlflow.genai.label_schemas import InputCategorical, InputNumeric, InputPassFail, InputText
    from mlflow.genai.review_queues import ReviewQueue

GRADE, CORRECTED = "grade", "corrected_label"  # the questions, and the names of what is answered to them
MOST_OPTIONS, LONGEST_OPTION = 10, 64  # of a choice in MLflow's review page; more answers are typed
MOST_QUESTION_CHARACTERS = 1000
PAGE = 100

Which = Literal["sample", "wrong"]
"""The first examples in seeded order, which stand for all; or the first that were answered wrong."""


@dataclass(frozen=True)
class Queue:
    """A review queue. `examples`: how many are in it; `path`: its page, under the tracking server's address."""

    name: str
    examples: int
    path: str


@dataclass(frozen=True)
class Said:
    """What one person said of one example last. `grade` in 0..1, None where only the label was corrected; `corrected`
    is the label as it was given, empty where it was left as it is; `when` in UTC, ISO 8601.

    `sampled`: it was done in the queue of the sample. Only such grades stand for all answers: those that people gave
    because an answer was wrong, or caught their eye, do not.
    """

    row_id: str
    text: str
    answer: str
    expected: str | None
    set: str
    sampled: bool
    grade: float | None
    corrected: str
    who: str
    when: str
    why: str


def open_queue(run: StageRun, task: Task, which: Which, most: int) -> Queue:
    """The queue of this run's examples, made where there is none; examples that are in it already stay as they are.

    The run's traces must be there (see `leastwise.record.review.showing`).
    """
    from mlflow.genai import review_queues

    name, questions = _name(run, which), _questions(task, run.experiment_id)
    queue = _queue_of(run, which) or review_queues.create_review_queue(
        name, queue_type="custom", schema_ids=questions, experiment_id=run.experiment_id
    )
    wanted = [each.trace_id for each in _asked(run, which, most)]
    there = set(_items(queue.queue_id))
    new = [each for each in wanted if each not in there]
    for at in range(0, len(new), PAGE):
        review_queues.add_items_to_review_queue(queue.queue_id, item_ids=new[at : at + PAGE])
    path = f"/#/experiments/{run.experiment_id}/review-queue?selectedQueueId={queue.queue_id}"
    return Queue(name, len(there) + len(new), path)


def _name(run: StageRun, which: Which) -> str:
    return f"{run.stage} · {which} · {run.id[:8]}"


def _queue_of(run: StageRun, which: Which) -> ReviewQueue | None:
    return next((each for each in _queues(run.experiment_id) if each.name == _name(run, which)), None)


def read_reviews(run: StageRun) -> list[Said]:
    """What people said of this run's examples, in its page or in a queue, in the order in which they were asked; of
    each person the last word.
    """
    examples = {each.trace_id: each for each in _examples(run)}
    said, queue = dict(_by_people(run)), _queue_of(run, "sample")
    done = set(_items(queue.queue_id, "complete")) if queue else set[str]()
    return [
        each
        for trace_id in examples
        if trace_id in said
        for each in _said(examples[trace_id], said[trace_id], sampled=trace_id in done)
    ]


def _examples(run: StageRun) -> list[Example]:
    """As they are shown: for their ids only run and row count."""
    return examples_of(Origin(run.experiment_id, run.id, 0, str(run.stage)), rows_of(run))


def _asked(run: StageRun, which: Which, most: int) -> list[Example]:
    answered = [
        each for each in _examples(run) if each.row["set"] == "gate" and isinstance(each.row.get("answer"), str)
    ]
    if which == "wrong":
        answered = [each for each in answered if each.row.get("score") != 1]
    return answered[:most]


def _questions(task: Task, experiment_id: str) -> list[str]:
    """Ids of the two questions, made where the experiment has none of their name."""
    from mlflow.genai import label_schemas

    there = {each.name: each.schema_id for each in label_schemas.list_label_schemas(experiment_id)}
    labels = f" One of: {', '.join(task.answers)}." if task.answers else ""
    asked = {
        GRADE: ("feedback", _grade_input(task), "Would you accept this answer? 1 is as it should be, 0 is useless."),
        CORRECTED: (
            "expectation",
            _label_input(task),
            f"Only where the expected label is wrong: the right one.{labels}",
        ),
    }
    for name, (kind, given, words) in asked.items():
        if name not in there:
            made = label_schemas.create_label_schema(
                name,
                type="feedback" if kind == "feedback" else "expectation",
                input=given,
                instruction=words[:MOST_QUESTION_CHARACTERS],
                enable_comment=True,
                experiment_id=experiment_id,
            )
            there[name] = made.schema_id
    return [str(there[name]) for name in asked]


def _grade_input(task: Task) -> InputNumeric | InputPassFail:
    from mlflow.genai.label_schemas import InputNumeric, InputPassFail

    if is_right_or_wrong(task):
        return InputPassFail(positive_label="acceptable", negative_label="not acceptable")
    return InputNumeric(min_value=0.0, max_value=1.0)


def _label_input(task: Task) -> InputCategorical | InputText:
    from mlflow.genai.label_schemas import InputCategorical, InputText

    answers = task.answers or ()
    if answers and len(answers) <= MOST_OPTIONS and max(map(len, answers)) <= LONGEST_OPTION:
        return InputCategorical(options=list(answers))
    return InputText()


def _queues(experiment_id: str) -> Iterator[ReviewQueue]:
    from mlflow.genai import review_queues

    token: str | None = None
    while token is None or token:
        page = review_queues.list_review_queues(experiment_id=experiment_id, max_results=PAGE, page_token=token)
        yield from page
        token = page.token or ""


def _items(queue_id: str, status: Literal["complete"] | None = None) -> Iterator[str]:
    from mlflow.genai import review_queues

    token: str | None = None
    while token is None or token:
        page = review_queues.list_review_queue_items(queue_id, status=status, max_results=PAGE, page_token=token)
        yield from (each.item_id for each in page)
        token = page.token or ""


def _by_people(run: StageRun) -> Iterator[tuple[str, list[Assessment]]]:
    """The traces of a run of which people said something, and what, without what was taken back or said anew."""
    token: str | None = None
    while token is None or token:
        page = run.client.search_traces(
            locations=[run.experiment_id], run_id=run.id, max_results=PAGE, page_token=token, include_spans=False
        )
        for trace in page:
            human = [
                each
                for each in trace.info.assessments
                if each.source.source_type == "HUMAN" and each.valid is not False
            ]
            if human:
                yield trace.info.trace_id, human
        token = page.token or ""


def _said(example: Example, assessments: Sequence[Assessment], *, sampled: bool) -> Iterator[Said]:
    row = example.row
    for who in dict.fromkeys(each.source.source_id or "unnamed" for each in assessments):
        own = sorted((each for each in assessments if (each.source.source_id or "unnamed") == who), key=_when_ms)
        last = {each.name: each for each in own if each.name in (GRADE, CORRECTED)}
        grade = _grade(last.get(GRADE))
        corrected = str(_value(last.get(CORRECTED)) or "").strip()
        if grade is None and not corrected:
            continue
        yield Said(
            row_id=str(row["id"]),
            text=str(row["input"]),
            answer=str(row.get("answer") or ""),
            expected=str(row["expected"]) if isinstance(row.get("expected"), str) else None,
            set=str(row["set"]),
            sampled=sampled,
            grade=grade,
            corrected=corrected,
            who=who,
            when=datetime.fromtimestamp(max(map(_when_ms, last.values())) / 1000, UTC).isoformat(timespec="seconds"),
            why="; ".join(each.rationale for each in last.values() if each.rationale),
        )


def _grade(given: Assessment | None) -> float | None:
    """A grade in 0..1; what is no such number is none."""
    value = _value(given)
    if not isinstance(value, bool | int | float):
        return None
    return float(value) if 0 <= value <= 1 else None


def _value(given: Assessment | None) -> object:
    held = (given.feedback or given.expectation) if given else None
    return held.value if held else None


def _when_ms(assessment: Assessment) -> int:
    return int(assessment.last_update_time_ms or assessment.create_time_ms or 0)
