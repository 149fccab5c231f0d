"""A served model at work: who pays for its calls, where its latency was measured, what an unknown cost leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.use_case.model import Venue
from tests.servers.hostile_server import HostileServer, hostile_server
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "output": 4.0}


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _key(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    hostile.forget()


def climb(folder: Path, base_url: str, venue: Venue = "api", **requirements: Any) -> Workspace:
    """An open climb of 60 rows whose only model answers at this address."""
    folder.mkdir(exist_ok=True)
    labels = ["alpha" if i % 3 else "beta" for i in range(60)]
    texts = [f"text {i} key={label} it is" for i, label in enumerate(labels)]
    pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": texts, "label": labels}).to_parquet(
        folder / "gate.parquet"
    )
    case: dict[str, Any] = {
        "name": "served",
        "task": {"instruction": "Which?", "labels": ["alpha", "beta"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}, **requirements},
        "traffic": {"requests_per_month": 1000, "concurrency": 4},
        "models": {"candidates": [{"uri": "openai:m", "price": PRICE, "base_url": base_url, "venue": venue}]},
        "allow_no_test": True,
    }
    return opened(case_file(folder, case))


def candidate(venue: Venue = "api") -> Candidate:
    return Candidate(stage="prompt", model="openai:m", venue=venue, prompt=Prompt(system="Which?"))


def test_a_cost_that_is_not_known_is_no_evidence_and_the_reason_names_the_missing_usage(
    hostile: HostileServer, home: Path, tmp_path: Path
) -> None:
    work = climb(tmp_path, hostile.base_url("null_usage"), usd_per_1k_requests={"bound": 0.01, "margin": 0.01})
    result = evaluate_stage(work, "prompt", [candidate()])
    assert result.verdict.outcome == "ERROR" and "without usage" in str(result.evaluation.error)
    assert hostile.calls("null_usage") <= 60 and work.budget.usd_spent > 0.001


def test_where_no_cost_is_required_an_unknown_usage_is_counted_at_its_most_and_told(
    hostile: HostileServer, home: Path, tmp_path: Path
) -> None:
    work = climb(tmp_path, hostile.base_url("null_usage"))
    result = evaluate_stage(work, "prompt", [candidate()])
    assert result.verdict.outcome == "PASS" and work.budget.usd_spent > 0.001
    assert result.run.figures["calls.usage_unknown"] == hostile.calls("null_usage") == 25


@pytest.mark.parametrize("venue", ["api", "managed"])
def test_a_managed_host_is_metered_as_an_api_is(
    hostile: HostileServer, home: Path, tmp_path: Path, venue: Venue
) -> None:
    work = climb(tmp_path, hostile.base_url("good"), venue)
    with open_answerer(work, candidate(venue)) as answerer:
        answerer.answer(work.question.gate.rows.head(3))
    assert work.budget.usd_spent == pytest.approx(3 * (50 + 4 * 3) / 1e6)


def test_own_machines_are_judged_on_latencies_measured_there_and_its_answers_are_bought_once(
    hostile: HostileServer, home: Path, tmp_path: Path
) -> None:
    work = climb(tmp_path, hostile.base_url("good"))
    rows = work.question.gate.rows.head(3)
    with open_answerer(work, candidate()) as answerer:
        first = answerer.answer(rows)
        assert answerer.timed(rows, first) == [each.latency_ms for each in first] and hostile.calls("good") == 3
    with open_answerer(work, candidate("self_host")) as answerer:
        answers = answerer.answer(rows)
        assert [each.text for each in answers] == [each.text for each in first] and hostile.calls("good") == 3
        assert [each.latency_ms for each in answers] == [None] * 3, "what prompt took is nothing of own machines"
        times = answerer.timed(rows, answers)
        assert len(times) == 3 and hostile.calls("good") == 6
        again = answerer.answer(rows)
        assert answerer.timed(rows, again) == pytest.approx([each.latency_ms for each in again])
        assert hostile.calls("good") == 6, "measured once"


def test_a_corrected_address_is_asked_anew(hostile: HostileServer, home: Path, tmp_path: Path) -> None:
    for number, habit in enumerate(("wrong", "good")):
        work = climb(tmp_path / str(number), hostile.base_url(habit))
        verdict = evaluate_stage(work, "prompt", [candidate()]).verdict.outcome
        assert verdict == ("FAIL", "PASS")[number] and hostile.calls(habit) == 25


def test_refusals_of_content_are_the_models_failures_and_no_loss(
    hostile: HostileServer, home: Path, tmp_path: Path
) -> None:
    work = climb(tmp_path, hostile.base_url("dashscope_filter"))
    result = evaluate_stage(work, "prompt", [candidate()])
    assert result.verdict.outcome == "FAIL" and result.evaluation.error is None
    assert result.evaluation.measurements["quality"].lost == 0 and hostile.calls("dashscope_filter") == 25
