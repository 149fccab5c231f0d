"""A climb's run: the tables it was given, how long each stage took, and what a kill left half written in it."""

import time
from pathlib import Path
from typing import Any

import pytest

from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.ladder.measured import Measured
from leastwise.record.climb_run import OpenClimb, open_climb
from leastwise.record.run import ANSWERED_BY, FAILED, KIND, PARENT, REASON, REUSED_FROM, STAGE, VERDICT
from leastwise.record.stage_run import SKIPPED, StageRun
from tests.conversations import conversations
from tests.workspaces import evaluation_of, log_stage, quality


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    return conversations(tmp_path)


def test_a_run_names_the_tables_it_was_given(work: Workspace) -> None:
    (given,) = work.run.again().run.inputs.dataset_inputs
    assert given.dataset.name == "gate"
    assert work.tables.hashes["gate"].startswith(given.dataset.digest)


def test_a_reason_that_names_a_file_of_this_machine_says_no_path_to_others(work: Workspace, home: Path) -> None:
    run = ended(work, 1)
    run.write(tags={REASON: f"end of {home}/logs/prompt.log; file://{home}/a, s3://bucket{home}/a and {home}-2/a stay"})
    told = "end of ${LEASTWISE_HOME}/logs/prompt.log; file://${LEASTWISE_HOME}/a"
    assert run.again().tag(REASON) == f"{told}, s3://bucket{home}/a and {home}-2/a stay"
    (given,) = work.run.again().run.inputs.dataset_inputs
    assert str(home) not in given.dataset.source


LATER_MS = 60_000  # after the climb was opened: by then this process was there


def ended(work: Workspace, seconds_in: float | None, under: str = "") -> StageRun:
    """A run under the climb (or under one of its runs) that ended so many seconds in; None where it has not ended."""
    client = work.run.client
    tags = {KIND: "stage", PARENT: under or work.run.id}
    run = client.create_run(work.run.experiment_id, tags=tags)
    if seconds_in is not None:
        client.set_terminated(run.info.run_id, end_time=int(opened_ms(work) + LATER_MS + 1000 * seconds_in))
    return StageRun.read(client, run.info.run_id)


def opened_ms(work: Workspace) -> int:
    return int(work.run.run.info.start_time)


def test_a_stage_took_the_seconds_since_the_run_before_it_ended_whatever_was_tried_or_trained_in_it(
    work: Workspace,
) -> None:
    ended(work, 10)
    ended(work, 25)
    stage = ended(work, 67.5)
    ended(work, 60, under=stage.id)
    assert work.run.seconds_of(stage) == pytest.approx(67.5 - 25)


def test_the_first_stage_took_the_seconds_since_this_process_took_the_climb_up(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = ended(work, 5)
    assert work.run.seconds_of(stage) == pytest.approx(LATER_MS / 1000 + 5), "the climb was opened by this process"
    monkeypatch.setattr("leastwise.record.climb_run._process_start_ms", lambda: opened_ms(work) + LATER_MS + 2000)
    assert work.run.seconds_of(stage) == pytest.approx(3), "the climb was there already, and this process resumed it"


def test_a_stage_that_was_resumed_did_not_take_the_time_nobody_worked_on_it(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(work, 5)
    stage = ended(work, 1000)
    monkeypatch.setattr("leastwise.record.climb_run._process_start_ms", lambda: opened_ms(work) + LATER_MS + 990_000)
    assert work.run.seconds_of(stage) == pytest.approx(10)


def test_a_stage_that_has_not_ended_took_the_seconds_until_now(work: Workspace) -> None:
    stage = ended(work, None)
    assert work.run.seconds_of(stage) == pytest.approx(time.time() - opened_ms(work) / 1000, abs=5)


PROMPTED = Candidate(stage="prompt", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="Answer."))


def again(work: Workspace) -> OpenClimb:
    """The same climb, opened once more as after a kill."""
    return open_climb(work.run.client, work.use_case, work.question.key)


def skips(work: Workspace) -> list[str]:
    return [record.stage for record in work.run.history(work.use_case.gate_requirements) if record.skipped]


def test_a_skip_that_a_kill_left_half_logged_is_finished_and_the_ladder_goes_on(work: Workspace) -> None:
    tags = {KIND: "stage", STAGE: "rag", VERDICT: SKIPPED, REASON: "no documents", PARENT: work.run.id}
    work.run.client.create_run(work.run.experiment_id, tags=tags)
    assert skips(work) == []
    work.run.log_skip("rag", "no documents")
    assert skips(work) == ["rag"]


def test_a_skip_is_considered_anew_when_a_climb_is_resumed_and_has_one_run(work: Workspace) -> None:
    work.run.log_skip("rag", "approvals.rag is never")
    resumed = again(work)
    assert resumed.is_resumed and resumed.run.id == work.run.id and skips(work) == []
    work.run.log_skip("rag", "nothing to retrieve")
    assert skips(work) == ["rag"]
    (run,) = (run for run in work.run.children() if run.data.tags[VERDICT] == SKIPPED)
    assert run.data.tags[REASON] == "nothing to retrieve"


def test_a_link_that_a_kill_left_half_written_is_finished_and_names_the_run_that_was_measured(work: Workspace) -> None:
    measured = log_stage(work, PROMPTED, quality(0.85, 0.95), rows=[{"id": "r0", "set": "gate"}])
    work.run.close()
    second = again(work)
    tags = {KIND: "stage", PARENT: second.run.id, REUSED_FROM: measured.id}
    begun = work.run.client.create_run(work.run.experiment_id, tags=tags)
    linked = second.run.link(measured)
    assert linked.id == begun.info.run_id and linked.is_finished and linked.verdict == "PASS"
    second.run.close()
    third = again(work).run.link(linked)
    assert third.tag(REUSED_FROM) == measured.id and list(third.examples()["id"]) == ["r0"]
    assert third.name.count("reused") == 1


def test_a_reference_that_is_judged_is_not_finished_before_its_verdict_is_there(work: Workspace) -> None:
    evaluation = evaluation_of("reference", quality(0.85, 0.95))
    judged = work.run.log_reference(evaluation, "", {}, is_whole=False)
    assert work.run.reference_run() is None
    judged.close()
    assert work.run.reference_run() is not None


def test_examples_that_are_logged_again_after_a_kill_do_not_count_twice(work: Workspace) -> None:
    run = work.run.open_stage("prompt", "key")
    evaluation = evaluation_of("prompt", quality(0.85, 0.95))
    for _ in range(2):
        run.log_examples(Measured(evaluation, {}, rows=[{"id": "r0", "set": "gate", "score": 1.0}]))  # type: ignore[arg-type]
    assert len(run.examples()) == 1


def test_the_models_that_answered_are_a_tag_of_the_stage_and_a_column_of_its_examples(work: Workspace) -> None:
    run, evaluation = work.run.open_stage("prompt", "key"), evaluation_of("prompt", quality(0.85, 0.95))
    rows: list[Any] = [{"id": f"r{at}", "set": "gate", "answered_by": "m-new" if at else "m-old"} for at in range(3)]
    run.log_examples(Measured(evaluation, {}, rows=rows))
    assert run.again().tag(ANSWERED_BY) == "m-new (2), m-old (1)"
    assert list(run.examples()["answered_by"]) == ["m-old", "m-new", "m-new"]


def test_a_try_that_was_finished_before_a_kill_is_not_logged_again(work: Workspace) -> None:
    stage = work.run.open_stage("prompt", "key")
    tried = work.run.open_stage("prompt", "a try", under=stage.id)
    tried.close()
    assert work.run.open_stage("prompt", "a try", under=stage.id).id == tried.id
    tried.close(FAILED)  # an outage: it is tried again in a run of its own
    assert work.run.open_stage("prompt", "a try", under=stage.id).id != tried.id
