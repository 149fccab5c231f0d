"""The stage cache on traffic as it really is, without expected answers: measured at a real endpoint, logged, audited,
taken up after a kill, and asked again for nothing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.asked import asked_of
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.audit import differences
from leastwise.evaluating.samples.replay import Replay
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.record.bills import Bills
from leastwise.record.judged_runs import use_case_above
from leastwise.record.review.showing import rows_of
from leastwise.record.review.traces import Origin, examples_of
from leastwise.record.stage_run import EXAMPLES
from leastwise.rows.use_case_file import load
from tasks.cache import cache_candidate
from tasks.prompt import prompt_candidates
from tasks.session.workspace import open_workspace, prospect_of
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
GATE, TRAFFIC, DISTINCT = range(1_000, 1_300), 200, 25


@dataclass
class Parity:
    """A model that tells odd from even and counts what it is asked."""

    asked: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.Response:
        text = str((await request.json())["messages"][-1]["content"])
        self.asked[text] += 1
        return chat_completion("toy", "odd" if int(text.rsplit(maxsplit=1)[-1]) % 2 else "even", 40, 2)


@contextmanager
def parity_in(home: Path, empty_tracking: Path) -> Iterator[tuple[Parity, str]]:
    """The model behind a server, and this state directory for whoever asks it."""
    shutil.copy(empty_tracking, home / "mlflow.db")
    parity = Parity()
    with pytest.MonkeyPatch.context() as patch, served(web.post("/v1/chat/completions", parity.answer)) as address:
        patch.setenv("LEASTWISE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("OPENAI_API_KEY", "none")
        patch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
        yield parity, f"{address}/v1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[tuple[Parity, str]]:
    with parity_in(tmp_path_factory.mktemp("caching"), empty_tracking) as served_model:
        yield served_model


def rows(numbers: Any, named: str) -> pd.DataFrame:
    """Numbers as rows with their parity."""
    texts = [f"number {number}" for number in numbers]
    labels = ["odd" if number % 2 else "even" for number in numbers]
    return pd.DataFrame({"id": [f"{named}{at}" for at in range(len(texts))], "text": texts, "label": labels})


REQUESTS = rows([10_000 + at % DISTINCT for at in range(TRAFFIC)], "t")
LIMITS = {"quality": (0.8, 0.1), "adherence": (0.9, 0.1), "usd_per_1k_requests": (0.03, 0.009)}


def case(folder: Path, name: str, address: str, traffic: pd.DataFrame, **changed: Any) -> str:
    rows(GATE, "g").to_parquet(folder / "gate.parquet")
    traffic.to_parquet(folder / "traffic.parquet")
    fields: dict[str, Any] = {
        "name": name,
        "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet", "traffic": "traffic.parquet"},
        "requirements": {name: {"bound": bound, "margin": margin} for name, (bound, margin) in LIMITS.items()},
        "traffic": {"requests_per_month": 1000, "concurrency": 4, "output_tokens": 8},
        "models": {"candidates": [{"uri": "openai:toy", "base_url": address, "price": PRICE, "context_tokens": 200}]},
        "retrieval": {"fixed_examples": 0},
        "allow_no_test": True,
    }
    return case_file(folder, fields | changed)


def prompted(path: str) -> Workspace:
    """A climb whose stage prompt passed quality and adherence and is too dear."""
    work = opened(path)
    result = evaluate_stage(work, "prompt", prompt_candidates(work)[:1])
    assert result.verdict.named("FAIL") == ("usd_per_1k_requests",), result.verdict.reason
    return open_workspace(work.run.id)


def cached(work: Workspace) -> StageResult:
    return evaluate_stage(work, "cache", [cache_candidate(work)])


@pytest.fixture(scope="module")
def climb(model: tuple[Parity, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, StageResult, Path]:
    folder = tmp_path_factory.mktemp("unlabelled")
    work = prompted(case(folder, "unlabelled", model[1], REQUESTS.drop(columns="label")))
    before = model[0].asked.copy()
    result = cached(work)
    new = model[0].asked - before
    assert set(new) == set(REQUESTS["text"]) and set(new.values()) == {1}, "each text of the traffic once, nothing else"
    return work, result, folder


def test_traffic_without_labels_decides_what_it_can_and_gate_rows_the_rest_for_no_call(
    climb: tuple[Workspace, StageResult, Path],
) -> None:
    work, result, _ = climb
    assert result.verdict.outcome == "PASS", result.verdict.reason
    examples = result.run.every_example()
    assert set(examples["set"]) == {"gate", "traffic"}
    assert examples[examples["set"] == "traffic"]["expected"].isna().all()
    prompt = work.run.latest("prompt")
    assert list(result.run.examples()["answer"]) == list(prompt.examples()["answer"])[: len(result.run.examples())]
    assert result.run.figures["calls.paid"] == DISTINCT and result.run.examples()["from_store"].all()
    assert 0.4 < result.run.figures["cache.hit_rate"] < 1 - DISTINCT / TRAFFIC, "what is a day old is asked again"


def test_the_run_says_which_rows_each_requirement_was_judged_on(climb: tuple[Workspace, StageResult, Path]) -> None:
    _, result, _ = climb
    assert "requests of data.traffic, which has no expected answers" in result.table
    assert "gate rows, to which a cache says what is said behind it" in result.table
    inputs = {each.dataset.name for each in result.run.again().run.inputs.dataset_inputs}
    assert inputs == {"traffic", "gate"}


def test_the_audit_derives_the_verdict_again_from_both_sets(climb: tuple[Workspace, StageResult, Path]) -> None:
    _, result, _ = climb
    assert differences(result.run.again(), use_case_above(result.run)) == []


def test_a_trace_shows_of_a_row_what_was_judged_on_it_gate_rows_first(
    climb: tuple[Workspace, StageResult, Path],
) -> None:
    _, result, _ = climb
    run = result.run.origin
    shown = examples_of(Origin(run.experiment_id, run.id, 0, "cache"), rows_of(run))
    sets = [each.row["set"] for each in shown]
    assert sets == sorted(sets) and set(sets) == {"gate", "traffic"}
    told = {str(each.row["set"]): {given.name for given in each.info().assessments} for each in shown}
    assert told == {"gate": {"quality", "label"}, "traffic": {"adherence"}}


@pytest.mark.parametrize(
    ("which", "values", "words"),
    [
        ("traffic", {"answer": "odd or so", "score": 1.0, "adherence": 1.0}, "scored otherwise than the answer"),
        ("traffic", {"usd": 0.0}, "usd.per_request: logged"),
        ("gate", {"answer": "neither", "score": 0.0}, "quality: logged"),
        ("gate", {"set": "traffic", "expected": None}, "rows of gate"),
    ],
)
def test_a_falsified_row_of_either_set_is_found(
    climb: tuple[Workspace, StageResult, Path], which: str, values: dict[str, Any], words: str
) -> None:
    run = climb[1].run
    table: Any = run.read_json(EXAMPLES)
    kept = json.dumps(table)
    changed = next(row for row in table["data"] if row[table["columns"].index("set")] == which)
    for name, value in values.items():
        changed[table["columns"].index(name)] = value
    if "usd" in values:
        changed = next(row for row in table["data"] if row[table["columns"].index("usd")] > 0)
        changed[table["columns"].index("usd")] = 0.0
    run.log_text(json.dumps(table), EXAMPLES)
    try:
        assert words in " | ".join(differences(run.again(), use_case_above(run)))
    finally:
        run.log_text(kept, EXAMPLES)


def test_asked_again_it_makes_no_call(climb: tuple[Workspace, StageResult, Path], model: tuple[Parity, str]) -> None:
    work, result, _ = climb
    before = model[0].asked.total()
    again = evaluate_stage(open_workspace(work.run.id), "cache", [result.run.candidate()])
    assert model[0].asked.total() == before and again.how == "there"
    assert again.evaluation == result.evaluation


def test_a_kill_between_the_two_sets_is_taken_up_and_buys_nothing_twice(
    model: tuple[Parity, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity, address = model
    numbers = rows([20_000 + at % DISTINCT for at in range(TRAFFIC)], "t").drop(columns="label")
    path = case(tmp_path, "killed", address, numbers)
    work = prompted(path)

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    before = parity.asked.copy()
    with monkeypatch.context() as patch:
        patch.setattr(Replay, "answers_to", kill)
        with pytest.raises(Killed):
            cached(work)
    asked = parity.asked - before
    assert asked.total() == DISTINCT
    result = cached(open_workspace(work.run.id))
    assert (parity.asked - before) == asked and result.verdict.outcome == "PASS"
    assert differences(result.run.again(), use_case_above(result.run)) == []


def test_the_worst_case_is_a_bound_where_no_gate_row_is_in_the_store(
    climb: tuple[Workspace, StageResult, Path], tmp_path: Path
) -> None:
    work, result, _ = climb
    labelled = prospect_of(load(case(tmp_path, "labelled", "http://127.0.0.1:9/v1", REQUESTS)))
    asked = asked_of(work.question)
    assert asked.beside_traffic == asked.gate and asked_of(labelled.question).beside_traffic.rows == 0
    assert work.costing.worst["cache"] > labelled.costing.worst["cache"]
    more = work.costing.expected()["cache"].calls - labelled.costing.expected()["cache"].calls
    assert more >= 25, "gate rows are expected to be asked, which costs nothing where the stage below asked them"
    bill = sum(result.run.every_example()["usd"]) + result.run.figures.get("usd.unjudged", 0.0)
    assert 0 < bill <= work.costing.worst["cache"]


def test_a_months_bill_of_a_cache_is_that_of_the_traffic(climb: tuple[Workspace, StageResult, Path]) -> None:
    work, result, _ = climb
    bills = Bills(work.run, work.catalogue, work.budget)
    option = next(each for each in bills.options() if each.name == "cache")
    assert option.usage is not None and option.price is not None
    per_1k = 1000 * option.price.usd(option.usage)
    assert per_1k == pytest.approx(result.run.figures["usd_per_1k_requests"], rel=0.3)
