"""What a reviewer finds in MLflow's own pages after a climb, read back through MLflow's client."""

import base64
import json
import logging
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import AssessmentSource, Feedback, Trace

from leastwise.answering.workspace import Workspace
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate, Prompt, Retriever, Shot
from leastwise.record.review import background, data_sets, traces
from leastwise.record.review.prompts import name_of
from leastwise.record.review.showing import Showing
from leastwise.record.review.views import COSTS_VIEW, GATE_VIEW
from leastwise.record.run import TRACES
from leastwise.record.stage_run import StageRun
from tests.conversations import conversations
from tests.record.test_climb_run import again
from tests.workspaces import log_stage, quality

PROMPTED = Candidate(
    stage="prompt",
    model="openai:gpt-4o-mini",
    venue="api",
    prompt=Prompt(system="Yes or no?", shots=(Shot(text="sun?", label="yes"),)),
)
PASSED = quality(0.85, 0.95)


@pytest.fixture(scope="module", autouse=True)
def all_are_shown(few_are_shown: None) -> Iterator[None]:
    """As many rows are shown here as of a user's tables."""
    with pytest.MonkeyPatch.context() as patch:
        for room in (data_sets, traces):
            patch.setattr(room, "MOST", 1000)
        yield


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def row(at: int, **fields: Any) -> dict[str, Any]:
    usual = {"id": f"r{at}", "input": f"text {at}", "expected": "yes", "answer": "yes", "score": 1.0, "adherence": 1.0}
    paid = {"latency_ms": 120.0 + at, "usd": 0.002, "input_tokens": 20, "cached_tokens": 5, "output_tokens": 2}
    return {**usual, **paid, "from_store": False, "set": "gate", "error": None, "unit": None, **fields}


ROWS = [
    row(0),
    row(1, answer="no", score=0.0, latency_ms=None, from_store=True),
    row(2, answer=None, score=None, adherence=None, usd=0.0, latency_ms=None, error="503 from the provider"),
    row(3, set="ood_decline", expected=None, score=1.0),
]


def logged(work: Workspace, rows: Any = ROWS, measured: Measurement = PASSED, **fields: Any) -> StageRun:
    return log_stage(work, PROMPTED.model_copy(update=fields), measured, rows=rows)


def traces_of(run: StageRun) -> list[Trace]:
    """Newest first, as MLflow's pages list them."""
    found = run.client.search_traces(locations=[run.experiment_id], run_id=run.id, max_results=500)
    return list(found)


def shown_of(trace: Trace) -> dict[str, object]:
    return {each.name: each.value for each in trace.info.assessments}


def test_every_example_of_a_judged_run_is_a_trace_with_its_scores_and_the_gates_first_row_on_top(
    work: Workspace,
) -> None:
    run = logged(work)
    Showing(work.use_case).climb(work.run, {})
    right, wrong, lost, declined = found = traces_of(run)
    assert [each.info.tags[traces.ROW] for each in found] == ["r0", "r1", "r2", "r3"]
    assert shown_of(right) == {"quality": True, "adherence": True, "label": "yes"}
    assert (right.info.request_preview, right.info.response_preview) == ("text 0", "yes")
    assert right.info.execution_duration == 120 and right.info.tags[traces.FROM_STORE] == "false"
    assert json.loads(right.info.trace_metadata["mlflow.trace.cost"])["total_cost"] == 0.002
    usage = {"input_tokens": 20, "output_tokens": 2, "total_tokens": 22, "cache_read_input_tokens": 5}
    assert json.loads(right.info.trace_metadata["mlflow.trace.tokenUsage"]) == usage
    assert (right.data.spans[0].inputs, right.data.spans[0].outputs) == ({"text": "text 0"}, "yes")
    assert shown_of(wrong)["quality"] is False and wrong.info.tags[traces.FROM_STORE] == "true"
    assert wrong.info.execution_duration is None, "unmeasured is not 0 ms"
    assert shown_of(lost) == {"label": "yes"} and lost.info.state == "ERROR", "what was lost has no score"
    assert shown_of(declined) == {"ood_decline": True}, "the mean of `quality` is that of the gate rows"


def test_a_run_its_model_and_its_prompt_are_linked_and_the_model_is_an_input_that_hides_no_run(work: Workspace) -> None:
    run = logged(work, retriever=Retriever(embedder="package://e", index="i", documents=2))
    Showing(work.use_case).climb(work.run, {})
    run, model_id = run.again(), run.again().tag("leastwise.model_id")
    assert [each.model_id for each in run.run.inputs.model_inputs] == [model_id]
    assert not run.run.outputs.model_outputs
    (version,) = run.client.search_prompt_versions(name_of(work.use_case.name))
    listed = run.client.search_prompts(f"experiment_id = '{run.experiment_id}'")
    assert [each.name for each in listed] == ["student-and-teacher.prompt"], "on the experiment's page of prompts"
    linked = [{"name": "student-and-teacher.prompt", "version": "1"}]
    assert json.loads(run.tag("mlflow.linkedPrompts")) == linked
    assert json.loads(run.client.get_logged_model(model_id).tags["mlflow.linkedPrompts"]) == linked
    (first, *_) = traces_of(run)
    assert json.loads(first.info.tags["mlflow.linkedPrompts"]) == linked
    assert first.info.trace_metadata["mlflow.modelId"] == model_id
    contents = [each["content"] for each in version.template]
    assert contents[0] == "Yes or no?" and contents[1:3] == ["sun?", "yes"] and contents[-1] == "{{text}}"
    assert "{{documents}}" in contents[3]


def test_showing_twice_or_after_a_kill_changes_nothing_and_keeps_what_people_said(work: Workspace) -> None:
    run, showing = logged(work), Showing(work.use_case)
    showing.climb(work.run, {})
    said = Feedback(name="grade", value=0.5, source=AssessmentSource(source_type="HUMAN", source_id="ann"))
    trace_id = traces_of(run)[0].info.trace_id
    _say(run, trace_id, said)
    before = [each.to_dict() for each in traces_of(run)]
    run.client.delete_tag(run.id, TRACES)  # as a kill before the last step leaves it
    showing.climb(work.run, {})
    assert [each.to_dict() for each in traces_of(run)] == before
    assert len(run.client.search_prompt_versions(name_of(work.use_case.name))) == 1
    assert len(run.again().run.inputs.model_inputs) == 1
    assert run.again().tag(TRACES) == "4"


def test_traces_that_a_kill_left_without_their_spans_are_made_whole(work: Workspace) -> None:
    from mlflow.tracing.client import TracingClient

    run = logged(work)
    for each in traces.examples_of(traces.Origin(run.experiment_id, run.id, 1_000, "prompt"), ROWS[:2]):
        TracingClient(run.client.tracking_uri).start_trace(each.info())
    Showing(work.use_case).climb(work.run, {})
    assert [len(each.data.spans) for each in traces_of(run)] == [1, 1, 1, 1]
    assert sum(len(each.info.assessments) for each in traces_of(run)) == 3 + 3 + 1 + 1


def _say(run: StageRun, trace_id: str, said: Feedback) -> None:
    import mlflow

    mlflow.set_tracking_uri(run.client.tracking_uri)
    mlflow.log_assessment(trace_id, said)


def test_two_processes_that_show_one_run_at_once_leave_each_trace_once(work: Workspace) -> None:
    run = logged(work, [row(at) for at in range(60)])
    origin = traces.Origin(run.experiment_id, run.id, 1_000, "prompt")
    both = [Thread(target=traces.write, args=(run.client, traces.examples_of(origin, ROWS * 10))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    found = traces_of(run)
    assert len(found) == 40 and all(len(each.data.spans) == 1 for each in found)


def test_of_a_long_table_the_first_thousand_examples_are_shown_in_the_order_they_were_asked() -> None:
    origin = traces.Origin("1", "run", 10_000_000, "prompt")
    shown = traces.examples_of(origin, [row(at) for at in range(1500)])
    assert [each.row["id"] for each in shown] == [f"r{at}" for at in range(1000)]
    assert len({each.trace_id for each in shown}) == 1000
    assert shown[0].requested_ms > shown[-1].requested_ms > 10_000_000


def test_a_graded_metric_is_a_number_throughout_and_names_the_judge_whose_grade_it_is() -> None:
    origin = traces.Origin("1", "run", 0, "prompt", judge="openai:gpt-4o", is_pass_fail=False)
    for score in (0.0, 0.4, 1.0):
        (example,) = traces.examples_of(origin, [row(0, score=score)])
        graded = next(each for each in example.info().assessments if each.name == "quality")
        assert graded.value == score and not isinstance(graded.value, bool)
        assert (graded.source.source_type, graded.source.source_id) == ("LLM_JUDGE", "openai:gpt-4o")


def test_a_grade_that_only_reports_stands_beside_the_metric() -> None:
    (example,) = traces.examples_of(traces.Origin("1", "run", 0, "prompt"), [row(0, judged=0.7)])
    assert {each.name: each.value for each in example.info().assessments}["judged"] == 0.7


def test_rows_of_one_id_are_traces_of_their_own_and_a_row_of_another_run_is_another() -> None:
    first, other = (traces.Origin("1", run, 0, "cache") for run in ("run", "other"))
    ids = {each.trace_id for origin in (first, other) for each in traces.examples_of(origin, [row(0), row(0)])}
    assert len(ids) == 4


def test_a_table_from_before_tokens_and_adherence_were_kept_is_shown_without_them() -> None:
    old = {"id": 7, "input": "text", "expected": "yes", "answer": "yes", "score": 1.0, "set": "gate", "usd": None}
    (example,) = traces.examples_of(traces.Origin("1", "run", 0, "prompt"), [old])
    info = example.info()
    assert {each.name for each in info.assessments} == {"quality", "label"}
    assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 0


def test_a_reused_stage_shows_the_traces_of_its_origin_and_what_that_lacks_is_made_up_for(work: Workspace) -> None:
    run = logged(work, [row(at) for at in range(130)])
    work.run.close()
    climb = again(work).run
    linked = climb.link(run)
    Showing(work.use_case).climb(climb, {})
    assert [len(traces_of(each)) for each in (run, linked)] == [130, 130]
    assert {each.info.trace_id for each in traces_of(linked)} == {each.info.trace_id for each in traces_of(run)}
    Showing(work.use_case).climb(climb, {})
    assert len(traces_of(linked)) == 130
    again_linked = again(work).run.link(linked.again())
    assert [each.again().tag(TRACES) for each in (run, linked, again_linked)] == ["130", "130", ""]
    assert [each.model_id for each in linked.again().run.inputs.model_inputs] == [run.tag("leastwise.model_id")]


def test_the_tries_a_stage_does_not_stand_for_are_shown_too(work: Workspace) -> None:
    stage = logged(work)
    for system in ("Yes or no?", "Other words."):
        candidate = PROMPTED.model_copy(update={"prompt": Prompt(system=system, shots=PROMPTED.prompt.shots)})  # type: ignore[union-attr]
        child = log_stage(work, candidate, PASSED, rows=ROWS)
        child.write(tags={"mlflow.parentRunId": stage.id, "leastwise.kind": "try"})
    Showing(work.use_case).climb(work.run, {})
    assert [len(traces_of(StageRun(stage.client, each))) for each in stage.children()] == [0, 4]


def test_a_table_is_a_data_set_once_for_its_content_and_an_input_of_the_climb(work: Workspace) -> None:
    from mlflow.genai import datasets

    rows = pd.DataFrame({"id": ["a", "b", "c"], "text": ["x", "y", "x"], "label": ["yes", "no", "yes"]})
    for tables in ({"gate": rows, "out_of_scope": rows[["id", "text"]]}, {"gate": rows}, {"gate": rows.head(2)}):
        Showing(work.use_case).climb(work.run, tables)
    found = datasets.search_datasets(experiment_ids=[work.run.experiment_id])
    assert sorted(each.name.rsplit(" ", 1)[0] for each in found) == [
        "student-and-teacher gate",
        "student-and-teacher gate",
        "student-and-teacher out_of_scope",
    ]
    given = {each.dataset.name for each in work.run.again().run.inputs.dataset_inputs}
    assert {each.name for each in found} <= given
    whole = next(each for each in found if each.tags["leastwise.rows"] == "3" and " gate " in each.name)
    assert len(whole.to_df()) == 2, "MLflow keeps a text once"
    assert {tuple(each.values()) for each in whole.to_df()["expectations"]} == {("yes",), ("no",)}


def test_of_a_long_table_a_data_set_has_the_first_thousand_rows_and_says_how_many_there_are(work: Workspace) -> None:
    from mlflow.genai import datasets

    rows = pd.DataFrame({"id": range(1200), "text": [f"t{at}" for at in range(1200)], "label": "yes"})
    Showing(work.use_case).climb(work.run, {"test": rows})
    (found,) = datasets.search_datasets(experiment_ids=[work.run.experiment_id])
    assert (found.tags["leastwise.rows"], found.tags["leastwise.shown"]) == ("1200", "1000")
    assert json.loads(found.profile or "{}")["num_records"] == 1000


def test_the_saved_views_are_made_once_and_anew_where_a_requirement_came(work: Workspace) -> None:
    def views() -> dict[str, Any]:
        tags = work.run.client.get_experiment(work.run.experiment_id).tags
        return {name: json.loads(value) for name, value in tags.items() if "sharedViewState" in name}

    Showing(work.use_case).climb(work.run, {})
    first = views()
    assert {each["name"] for each in first.values()} == {"Gate verdicts", "Costs"}
    assert {name.rpartition(".")[2] for name in first} == {GATE_VIEW, COSTS_VIEW}
    Showing(work.use_case).climb(work.run, {})
    assert views() == first
    wanted = work.use_case.requirements.model_copy(update={"adherence": work.use_case.requirements.quality})
    Showing(work.use_case.model_copy(update={"requirements": wanted})).climb(work.run, {})
    assert views() != first


def test_the_filters_of_the_saved_views_are_ones_that_mlflow_can_answer(work: Workspace) -> None:
    logged(work)
    work.run.write({"usd.spent": 0.1})
    Showing(work.use_case).climb(work.run, {})
    tags = work.run.client.get_experiment(work.run.experiment_id).tags
    found = {}
    for value in (value for name, value in tags.items() if "sharedViewState" in name):
        packed = json.loads(value)["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        found[json.loads(value)["name"]] = [
            each.data.tags["leastwise.kind"]
            for each in work.run.client.search_runs([work.run.experiment_id], state["searchFilter"])
        ]
    assert found == {"Gate verdicts": ["stage"], "Costs": ["stage", "ladder"]}


def test_a_server_that_refuses_traces_costs_a_line_and_no_more(
    work: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    run = logged(work)
    file = work.run.client.tracking_uri.partition("///")[2]
    _drop_table(file, "trace_info")
    with caplog.at_level(logging.WARNING, "leastwise"):
        Showing(work.use_case).climb(work.run, {})
    assert "could not be shown in MLflow" in caplog.text and "no verdict rests on it" in caplog.text
    assert not run.again().tag(TRACES), "the next climb tries again"


def _drop_table(file: str, table: str) -> None:
    import sqlite3

    with sqlite3.connect(file) as database:
        database.execute(f"DROP TABLE {table}")


def test_nothing_is_done_in_the_background_while_answers_are_timed() -> None:
    done: list[str] = []
    with background.held():
        with background.held():
            background.later("it", lambda: done.append("first"))
        time.sleep(0.05)
        assert done == []
    background.wait()
    assert done == ["first"]


def test_a_failure_in_the_background_keeps_nothing_else_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fails() -> None:
        raise OSError("no such server: http://user:secret@host")

    background.later("it", fails)
    background.later("more", lambda: done.append("more"))
    background.wait()
    assert done == ["more"] and "secret" not in caplog.text


def test_figures_are_logged_as_a_reviewer_reads_them_the_verdicts_first_and_tokens_last(work: Workspace) -> None:
    more = {"tokens.input": 9.0, "calls.paid": 3.0, "macro_f1": 0.5, "rows.gate": 4.0}
    run = log_stage(work, PROMPTED, PASSED, totals=more, rows=ROWS)
    names = list(run.figures)
    assert names[:5] == ["quality", "quality.lower", "quality.upper", "quality.bound", "quality.margin"]
    assert names.index("usd.spent") < names.index("macro_f1") < min(map(names.index, ("tokens.input", "calls.paid")))
