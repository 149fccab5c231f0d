"""What a stage that ended on another machine, a cap, or a question to a person does to a climb."""

from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pytest
from prefect import flow

from flows.customize import customize
from flows.steps import asking, stages
from flows.steps.stages import require_completed
from leastwise.answering.answerer import Outage
from leastwise.errors import CannotBeAsked
from leastwise.ladder import Step
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.run import CHAMPION_VERSION, DEPLOYED, STAGE
from leastwise.record.upkeep_run import UpkeepRun, open_upkeep
from leastwise.run_id import RunId
from leastwise.stores.caps import BudgetExceeded
from leastwise.use_case import Stage
from tasks import climb as climbing
from tasks import rebaseline as rebaselining
from tasks.serving import deploy as deploying
from tests.conversations import conversations
from tests.workspaces import log_stage, quality


@flow
def ends(how: str) -> str:
    if how == "cap":
        raise BudgetExceeded("budget_usd", 1.0, 0.9, 0.05, 0.2)
    if how == "defect":
        raise ValueError("weights are torn")
    return "done"


def test_a_cap_reached_on_a_pool_is_a_budget_outcome_with_its_remedy() -> None:
    with pytest.raises(BudgetExceeded, match=r"^budget_usd of \$1.0+ would be passed.*raise budget_usd above"):
        require_completed("fine_tune", ends("cap", return_state=True))


def test_any_other_end_on_a_pool_is_an_error_and_no_budget() -> None:
    with pytest.raises(RuntimeError, match=r"the fine_tune stage ended as Failed.*weights are torn") as ended:
        require_completed("fine_tune", ends("defect", return_state=True))
    assert not isinstance(ended.value, BudgetExceeded)
    with pytest.raises(RuntimeError, match="unknown"):
        require_completed("fine_tune", None)


def test_a_completed_stage_goes_on() -> None:
    require_completed("fine_tune", ends("well", return_state=True))


def test_a_winner_that_cannot_be_paid_to_be_confirmed_ends_the_climb_at_its_budget_and_can_be_resumed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = conversations(tmp_path)
    prompted = Candidate(stage="prompt", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="Answer."))
    log_stage(work, prompted, quality(0.85, 0.95))

    def at_its_cap(*_: object) -> str:
        raise BudgetExceeded("budget_usd", 1.0, 0.9, 0.05, 0.2)

    monkeypatch.setattr(climbing, "confirm", at_its_cap)
    ending = stages.ended(work.run.id, Step(action="end", outcome="prompt", stage="prompt", reason="it passes"))
    assert (ending.outcome, ending.exit_status, ending.confirmed) == ("budget", 3, "not measured")
    assert ending.reason.startswith("prompt meets the requirements, and is not confirmed on test: budget_usd of $1.0")
    assert not work.run.again().is_finished


UNMEASURABLE = [CannotBeAsked("openai:m: takes no system role"), Outage("the judge gave no grade")]


@pytest.mark.parametrize("why", UNMEASURABLE)
def test_a_winner_that_cannot_be_asked_on_test_stands_unconfirmed_with_the_reason(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    work = conversations(tmp_path)
    prompted = Candidate(stage="prompt", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="Answer."))
    log_stage(work, prompted, quality(0.85, 0.95))

    def refusing(*_: object, **__: object) -> object:
        raise why

    monkeypatch.setattr(climbing, "confirm", refusing)
    ending = stages.ended(work.run.id, Step(action="end", outcome="prompt", stage="prompt", reason="it passes"))
    assert (ending.outcome, ending.confirmed) == ("prompt", "not measured")
    assert ending.reason == f"it passes; it is not confirmed on test: {why}"


def test_a_self_host_that_passed_before_a_kill_gets_its_endpoint_without_being_measured_again(
    tmp_path: Path, home: Path
) -> None:
    work = conversations(tmp_path)
    hosted = Candidate(
        stage="self_host", model="openai:gpt-4o-mini", venue="self_host", prompt=Prompt(system="Answer.")
    )
    run = log_stage(work, hosted, quality(0.85, 0.95))
    assert deploying.was_cut_off(work.run.id)
    ending = stages.ended(work.run.id, Step(action="end", outcome="self_host", stage="self_host", reason="it passes"))
    assert (ending.outcome, ending.exit_status) == ("self_host", 0) and work.budget.usd_spent == 0
    said = run.again().tag(DEPLOYED)
    assert said == "No endpoint was started: it is not measured under load, for that would pay for every call."
    assert not deploying.was_cut_off(work.run.id) and len(work.run.stage_runs()) == 1


@pytest.mark.parametrize("why", UNMEASURABLE)
def test_a_stage_that_cannot_be_measured_ends_a_climb_as_an_error_that_can_be_resumed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    work = conversations(tmp_path)

    def refusing(*_: object) -> object:
        raise why

    monkeypatch.setattr("leastwise.evaluating.racing.open_scorer", refusing)
    monkeypatch.setattr("leastwise.evaluating.racing.Race._counted", lambda *_: nullcontext())
    ending = customize(str(tmp_path / "case.yaml"))
    assert (ending.outcome, ending.exit_status) == ("error", 1) and ending.reason == f"prompt: {why}"
    assert not work.run.again().is_finished


@pytest.mark.parametrize(("reference", "order"), [("report", ["prompt", "row 0"]), ("stop", ["row 0", "prompt"])])
def test_row_0_waits_for_the_first_verdict_unless_it_may_end_the_climb_before_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reference: str, order: list[str]
) -> None:
    conversations(tmp_path)
    case = tmp_path / "case.yaml"
    case.write_text(case.read_text() + f"\nreference: {reference}\n")
    came: list[str] = []

    def halted(stage: Stage, climb: RunId) -> RunId:
        came.append(stage)
        raise Outage("the provider is away")

    monkeypatch.setattr(stages, "run_stage", halted)
    monkeypatch.setattr(climbing, "measure_reference", lambda climb: came.append("row 0"))
    assert customize(str(case)).outcome == "error"
    assert came == order


@pytest.mark.parametrize("why", UNMEASURABLE)
def test_what_could_not_be_measured_on_a_pool_is_said_as_it_is_here(why: Exception) -> None:
    @flow
    def fails() -> None:
        raise why

    with pytest.raises(type(why), match=str(why)):
        require_completed("distill", fails(return_state=True))


def test_a_stage_on_its_own_that_reaches_a_cap_is_a_budget_outcome(tmp_path: Path, home: Path) -> None:
    work = conversations(tmp_path)
    ending = climbing.stage_halted(work.run.id, "budget_usd would be passed")
    assert (ending.outcome, ending.exit_status, ending.mlflow_run_id) == ("budget", 3, work.run.id)


def test_a_rebaseline_starts_no_stage_that_could_pass_a_budget(tmp_path: Path, home: Path) -> None:
    work = conversations(tmp_path)
    assert rebaselining.short_of_money(work.run.id, "prompt") is None
    work.budget.meter("prompt").pay(work.use_case.budget_usd)
    assert "prompt may cost $" in (rebaselining.short_of_money(work.run.id, "prompt") or "")


def test_a_rebaseline_that_cannot_be_measured_is_an_error_to_be_taken_up_again(tmp_path: Path, home: Path) -> None:
    work = conversations(tmp_path)
    run = open_upkeep(work.run.client, work.use_case, "rebaseline", "k", {CHAMPION_VERSION: "1", STAGE: "fine_tune"})
    ending = rebaselining.recommend.fn(run.id, [], "openai:m: takes no system role", "error")
    assert (ending.outcome, ending.exit_status) == ("error", 1) and "no system role" in ending.reason
    assert not UpkeepRun.read(work.run.client, run.id).is_finished


@pytest.mark.parametrize("stage", ["fine_tune", "self_host"])
def test_each_question_of_a_climb_is_a_pause_of_its_own(stage: Stage) -> None:
    """Prefect gives the answer to a pause it knows already without asking."""
    keys = {asking.pause_key(stage, question) for question in get_args(asking.Question)}
    assert len(keys) == len(get_args(asking.Question)) and f"leave-{stage.replace('_', '-')}" in keys
