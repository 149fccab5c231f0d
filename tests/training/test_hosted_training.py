"""Training at a host that speaks Fireworks' interface: bought once whatever is killed, paid by what the job says,
cancelled in good order, judged as the model that was trained; and its rows go nowhere else, logs included.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.money.model_book import ModelBook
from leastwise.stores.caps import BudgetExceeded
from leastwise.training.hosted import at_host
from leastwise.training.hosted.at_host import AtHost, TuningFailed
from leastwise.training.hosted.trainer import HostedModel
from tasks.fine_tune import evaluate_fine_tune, fine_tune_model
from tasks.session import workspace
from tasks.session.workspace import open_workspace, prospect_of
from tests.servers.tuning_server import ACCOUNT, BASE, KEY, USD_PER_MILLION, TuningServer, tuning_server
from tests.workspaces import case_file, opened

ROOT = Path(__file__).parents[2]
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4}
TRAINING_PRICE = {"usd_per_million_tokens": USD_PER_MILLION, "source": "the stand-in", "as_of": "2026-11-27"}
CITIES = ("Oslo", "Rome", "Paris", "Berlin")
SECRET = "the confidential matter of number"


@pytest.fixture
def host() -> Iterator[TuningServer]:
    with tuning_server() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TUNING_KEY", KEY)


def tables(folder: Path, train: int = 40) -> dict[str, str]:
    each = range(train + 60)
    texts = [f"{SECRET} {n} is about {CITIES[n % 4]}" for n in each]
    rows = pd.DataFrame({"id": [f"r{n}" for n in each], "text": texts, "label": [CITIES[n % 4] for n in each]})
    for name, part in {"train": rows[:train], "dev": rows[train : train + 20], "gate": rows[train + 20 :]}.items():
        part.to_parquet(folder / f"{name}.parquet")
    return {name: f"{name}.parquet" for name in ("train", "dev", "gate")}


def case(folder: Path, host: TuningServer, managed: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    there = {"base_url": host.base_url, "key_variable": "TUNING_KEY", "price": PRICE}
    at_host = {
        "base": {"uri": BASE, "venue": "managed", **there},
        "account": ACCOUNT,
        "price": TRAINING_PRICE,
        "poll_seconds": 0.01,
    }
    return {
        "name": "tuned-there",
        "task": {"instruction": "Name the city.", "labels": list(CITIES)},
        "data": tables(folder),
        "requirements": {"quality": {"bound": 0.8, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 24},
        "models": {"candidates": [{"uri": "openai:m", "base_url": "http://127.0.0.1:9/v1", "price": PRICE}]},
        "training": {"managed": at_host | (managed or {})},
        "alpha": 0.2,
        "allow_no_test": True,
        "last_stage": "fine_tune",
    } | more


def climb(folder: Path, host: TuningServer, managed: dict[str, Any] | None = None, **more: Any) -> Workspace:
    return opened(case_file(folder, case(folder, host, managed, **more)))


def worst_usd(work: Workspace) -> float:
    """What is reserved before a row is sent."""
    managed = work.use_case.training.managed
    assert managed and managed.price
    return managed.price.usd(at_host.examples_of(work.use_case, work.tables.need("train")).most_tokens)


def test_what_a_host_trained_is_judged_over_http_as_itself_and_paid_by_what_the_job_says(
    tmp_path: Path, host: TuningServer
) -> None:
    work = climb(tmp_path, host)
    made = fine_tune_model.fn(work.run.id)
    assert isinstance(made, HostedModel) and made.uri.startswith(f"fireworks:accounts/{ACCOUNT}/models/lw-")
    (job,) = host.jobs.values()
    cost = job.body["estimatedCost"]
    assert work.budget.usd_spent == pytest.approx(int(cost["units"]) + cost["nanos"] / 1e9)
    assert 0 < work.budget.usd_spent < worst_usd(work)
    assert work.budget.calls == 0 and work.budget.ledger.reserved(work.run.id) == 0
    assert work.budget.spent_by_purpose() == {"training": pytest.approx(work.budget.usd_spent)}
    run = work.run.stage(evaluate_fine_tune.fn(work.run.id, made))
    candidate = run.candidate()
    assert (candidate.model, candidate.venue, candidate.weights) == (made.uri, "managed", None)
    assert run.judged(work.use_case.gate_requirements).verdict.outcome == "PASS"
    assert set(host.asked) == {made.uri.removeprefix("fireworks:")}, "the base was asked"
    assert run.tag("leastwise.answered_by") == f"{made.uri.removeprefix('fireworks:')} (25)"
    assert run.tag("leastwise.open_weights") == "no" and host.keys == {f"Bearer {KEY}"}


def test_its_prompt_is_the_one_it_was_trained_with(tmp_path: Path, host: TuningServer) -> None:
    work = climb(tmp_path, host)
    fine_tune_model.fn(work.run.id)
    (text,) = host.files.values()
    first = text.splitlines()[0]
    assert '"system", "content": "Name the city."' in first and text.count("\n") == 40
    assert not host.data_sets, "its rows are left at the host"


def test_a_rerun_buys_nothing(tmp_path: Path, host: TuningServer) -> None:
    work = climb(tmp_path, host)
    made = fine_tune_model.fn(work.run.id)
    evaluate_fine_tune.fn(work.run.id, made)
    spent, asked = work.budget.usd_spent, len(host.asked)
    again = climb(tmp_path, host)
    assert fine_tune_model.fn(again.run.id) == made
    evaluate_fine_tune.fn(again.run.id, made)
    assert (len(host.jobs), host.uploads, len(host.asked)) == (1, 1, asked)
    assert again.budget.usd_spent == (spent if again.run.id == work.run.id else 0)


def test_other_rows_rank_or_passes_are_another_job(tmp_path: Path, host: TuningServer) -> None:
    made = {fine_tune_model.fn(climb(tmp_path, host).run.id)}
    made.add(fine_tune_model.fn(climb(tmp_path, host, {"rank": 8}).run.id))
    made.add(fine_tune_model.fn(climb(tmp_path, host, {"learning_rate": 1e-4}).run.id))
    with_fewer = case(tmp_path, host)
    with_fewer["training"]["max_examples"] = 20
    host.room = 10
    made.add(fine_tune_model.fn(opened(case_file(tmp_path, with_fewer)).run.id))
    assert len(made) == len(host.jobs) == 4
    made.add(fine_tune_model.fn(climb(tmp_path, host, {"wait_hours": 1}).run.id))
    assert len(made) == 4, "how long is waited is no other training"


KILLED = """
import sys
import leastwise.endpoints.tuning.wire
from tasks.fine_tune import fine_tune_model
fine_tune_model.fn(sys.argv[1])
"""


@pytest.mark.parametrize("moment", ["before the job is made", "before it is known that it is made"])
def test_a_job_is_bought_once_though_its_buyer_is_killed(tmp_path: Path, host: TuningServer, moment: str) -> None:
    work = climb(tmp_path, host)
    host.hold_jobs = moment == "before the job is made"
    host.hold_answers = not host.hold_jobs
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, work.run.id], env=env, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not host.count("POST", "/supervisedFineTuningJobs"):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    host.hold_jobs = host.hold_answers = False
    made = fine_tune_model.fn(work.run.id)
    assert isinstance(made, HostedModel) and len(host.jobs) == 1 and host.uploads == 1
    spent, worst = open_workspace(work.run.id).budget.usd_spent, worst_usd(work)
    is_found = moment != "before the job is made"
    assert spent == pytest.approx(worst) if is_found else worst < spent < 2 * worst, (
        "the killed one counts at its worst"
    )


def test_a_cap_below_the_worst_case_refuses_before_a_row_is_sent(tmp_path: Path, host: TuningServer) -> None:
    work = climb(tmp_path, host)
    low = work.use_case.model_copy(update={"budget_usd": worst_usd(work) / 2})
    work.budget.__dict__["use_case"] = low
    with pytest.raises(BudgetExceeded):
        AtHost(work.use_case.training.managed).train(work, "fine_tune")  # type: ignore[arg-type]
    assert host.uploads == 0 and not host.data_sets and not host.jobs and work.budget.usd_spent == 0


def test_a_job_that_turns_out_dearer_than_the_cap_allows_is_cancelled_and_counted_at_its_worst(
    tmp_path: Path, host: TuningServer
) -> None:
    work = climb(tmp_path, host)
    host.dearer, worst = 100.0, worst_usd(work)
    work.budget.__dict__["use_case"] = work.use_case.model_copy(update={"budget_usd": 1.5 * worst})
    with pytest.raises(BudgetExceeded):
        AtHost(work.use_case.training.managed).train(work, "fine_tune")  # type: ignore[arg-type]
    (job,) = host.jobs.values()
    assert job.states == ["CANCELLED"] and work.budget.usd_spent == pytest.approx(worst)
    assert work.budget.ledger.reserved(work.run.id) == 0


@pytest.mark.parametrize("knows_cancel", [True, False])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_is_stopped_in_good_order_cancels_the_job_and_the_next_run_has_another_made(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException], knows_cancel: bool
) -> None:
    work = climb(tmp_path, host)
    host.states, host.knows_cancel = ["RUNNING"], knows_cancel
    with monkeypatch.context() as patch:

        def interrupted(_: float) -> None:
            raise stop

        patch.setattr(at_host.time, "sleep", interrupted)
        with pytest.raises(stop):
            fine_tune_model.fn(work.run.id)
    assert [job.states for job in host.jobs.values()] == ([["CANCELLED"]] if knows_cancel else [])
    budget = open_workspace(work.run.id).budget
    assert budget.usd_spent == pytest.approx(worst_usd(work)) and budget.ledger.reserved(work.run.id) == 0
    host.states = ["RUNNING", "COMPLETED"]
    assert isinstance(fine_tune_model.fn(work.run.id), HostedModel)


def test_a_job_that_outlasts_the_wait_goes_on_there_and_is_found_again(tmp_path: Path, host: TuningServer) -> None:
    work = climb(tmp_path, host, {"wait_hours": 1e-6})
    host.states = ["RUNNING"]
    with pytest.raises(TimeoutError, match="run again to go on waiting"):
        fine_tune_model.fn(work.run.id)
    spent = work.budget.usd_spent
    (job,) = host.jobs.values()
    job.states, job.looks = ["COMPLETED"], 0
    assert isinstance(fine_tune_model.fn(work.run.id), HostedModel)
    assert len(host.jobs) == 1 and open_workspace(work.run.id).budget.usd_spent == spent


def test_a_job_that_failed_says_why_and_a_rerun_has_another_made(
    tmp_path: Path, host: TuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    work = climb(tmp_path, host)
    host.states, host.message = ["RUNNING", "FAILED"], "a node was lost"
    with pytest.raises(TuningFailed, match="failed: a node was lost"):
        fine_tune_model.fn(work.run.id)
    host.code = "INVALID_ARGUMENT"
    with pytest.raises(BadInput, match="failed: a node was lost"):
        fine_tune_model.fn(work.run.id)
    host.states = ["COMPLETED"]
    assert fine_tune_model.fn(work.run.id).uri.endswith("-3")  # type: ignore[union-attr]


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_job_that_somebody_ended_there_is_no_model(tmp_path: Path, host: TuningServer, state: str) -> None:
    work = climb(tmp_path, host)
    host.states = ["RUNNING", state]
    with pytest.raises(TuningFailed, match=state.lower()):
        fine_tune_model.fn(work.run.id)
    assert open_workspace(work.run.id).budget.ledger.reserved(work.run.id) == 0


def test_no_word_of_a_training_row_is_logged_or_raised(
    tmp_path: Path, host: TuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    work = climb(tmp_path, host)
    host.states, host.message = ["FAILED"], f'line 3 is wrong: "{SECRET} 2 is about Paris"'
    with pytest.raises(TuningFailed) as failed:
        fine_tune_model.fn(work.run.id)
    host.states, host.message = ["FAILED"], "line 3 is wrong: confidential matter of num"
    with pytest.raises(TuningFailed) as partly:
        fine_tune_model.fn(work.run.id)
    said = f"{failed.value} {partly.value} {caplog.text}"
    assert "confidential" not in said and "left out" in said and "lw-" in caplog.text


def test_a_job_that_tells_no_cost_is_settled_by_the_tokens_its_data_set_has(tmp_path: Path, host: TuningServer) -> None:
    host.tells_cost = False
    work = climb(tmp_path, host)
    fine_tune_model.fn(work.run.id)
    words = sum(4 + 3 for _ in range(40)) + 40 * (4 + 9) + 40 * (4 + 1)
    assert work.budget.usd_spent == pytest.approx(words * USD_PER_MILLION / 1e6)


def test_a_wrong_key_is_refused_in_words_and_nothing_is_paid(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = climb(tmp_path, host)
    monkeypatch.setenv("TUNING_KEY", "fw-another-key")
    with pytest.raises(BadInput, match="the key is refused") as refused:
        fine_tune_model.fn(work.run.id)
    assert "fw-another-key" not in str(refused.value) and work.budget.usd_spent == 0 and host.uploads == 0


def test_a_passing_outage_buys_nothing_twice(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.endpoints.tuning.wire.time.sleep", lambda _: None)
    work = climb(tmp_path, host)
    host.outages = [503, 429, 500]
    fine_tune_model.fn(work.run.id)
    assert len(host.jobs) == 1


def test_a_redirect_to_another_host_takes_neither_key_nor_rows_along(tmp_path: Path, host: TuningServer) -> None:
    work = climb(tmp_path, host)
    host.outages = [302]
    with pytest.raises(BadInput, match="another host"):
        fine_tune_model.fn(work.run.id)
    assert host.uploads == 0


def test_no_place_for_another_adapter_is_said_and_the_job_is_not_bought_again(
    tmp_path: Path, host: TuningServer
) -> None:
    work = climb(tmp_path, host)
    host.room = 0
    with pytest.raises(BadInput, match="unload one"):
        fine_tune_model.fn(work.run.id)
    host.room, spent = 1, work.budget.usd_spent
    fine_tune_model.fn(work.run.id)
    assert len(host.jobs) == 1 and open_workspace(work.run.id).budget.usd_spent == spent


def test_a_base_that_answers_in_place_of_the_tuned_model_is_not_judged_for_it(
    tmp_path: Path, host: TuningServer
) -> None:
    work = climb(tmp_path, host)
    made = fine_tune_model.fn(work.run.id)
    host.answers_as = BASE.removeprefix("fireworks:")
    with pytest.raises(BadInput, match="answers in its place"):
        evaluate_fine_tune.fn(work.run.id, made)


def test_residency_keeps_rows_from_a_host_that_it_does_not_list(tmp_path: Path, host: TuningServer) -> None:
    elsewhere = {"venues": ["api", "managed"], "hosts": ["127.0.0.1"]}
    base = {"uri": BASE, "venue": "managed", "price": PRICE}
    work = climb(
        tmp_path, host, {"base": base}, requirements={"quality": {"bound": 0.8, "margin": 0.3}, "residency": elsewhere}
    )
    with pytest.raises(BadInput, match=r"residency lets no row go to api\.fireworks\.ai"):
        fine_tune_model.fn(work.run.id)


def test_a_base_that_is_tuned_no_more_is_refused_before_the_climb_and_before_a_row_is_sent(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = climb(tmp_path, host)
    entry = {"uri": BASE, "basis": "announced", "source": "its page", "checked": "2026-11-27"}
    book = ModelBook.model_validate(
        {"models": [entry | {"may_be_tuned": "2026-11-01", "replacement": "fireworks:new"}]}
    )
    monkeypatch.setattr(workspace, "model_book", lambda _: book)
    words = r"taken until 2026-11-01 \(its page, looked at on 2026-11-27\); name fireworks:new instead"
    with pytest.raises(BadInput, match=words):
        fine_tune_model.fn(work.run.id)
    assert host.uploads == 0
    with pytest.raises(BadInput, match=words):
        prospect_of(work.use_case).catalogue.check_tunable(pd.Timestamp("2026-11-27").date())


def test_rows_longer_than_the_base_takes_are_named(tmp_path: Path, host: TuningServer) -> None:
    written = case(tmp_path, host)
    written["training"]["managed"]["base"]["context_tokens"] = 128
    work = opened(case_file(tmp_path, written))
    rows = pd.read_parquet(tmp_path / "train.parquet")
    rows.loc[2, "text"] = "1234567890 " * 60
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(BadInput, match="row 3"):
        fine_tune_model.fn(work.run.id)
