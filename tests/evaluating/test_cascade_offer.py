"""A cascade is offered where it is cheaper and holds quality, is judged like any candidate, and says what it escalates.

Two models behind one small server over HTTP: the cheap one knows when it does not know. The rest is real.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from aiohttp import web

from leastwise.answering import answering
from leastwise.answering.cascade import CascadeAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating import cascade_offer
from leastwise.evaluating.audit import audit
from leastwise.evaluating.consistency import ask_again
from leastwise.evaluating.stage import evaluate_stage, prompt_tries
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.record import run_record
from tasks.climb import open_climb
from tests.servers.web_server import chat_completion, served

CHEAP = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
DEAR = {"input": 5.0, "cached": 0.5, "output": 20.0, "illustrative": True}


def mixed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


class Models:
    """`small` is right on seven of ten texts and sure of them; `large` is right on all. `tells` its log-probabilities or not."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.tells = True
        self.hard = 3

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        model, text = asked["model"], asked["messages"][-1]["content"]
        self.asked[model] += 1
        right, is_hard = truth(text), mixed("hard" + text) % 10 < self.hard
        said = {"yes": "no", "no": "yes"}[right] if model == "small" and is_hard else right
        told: dict[str, Any] = {}
        if asked.get("logprobs") and self.tells:
            token = {"token": said, "logprob": math.log(0.55 if is_hard else 0.95), "bytes": None, "top_logprobs": []}
            told = {"logprobs": {"content": [token], "refusal": None}}
        return chat_completion(model, said, 100, 1, **told)


def truth(text: str) -> str:
    return "yes" if mixed(text) % 2 else "no"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Models, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = Models()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str, **changes: Any) -> Path:
    """Wanted: quality 0.9 within 0.1 at most $0.30 per 1,000: the small model is not good enough, the large one too dear."""
    for table, (first, last) in {"gate": (0, 600), "dev": (1000, 1150)}.items():
        texts = [f"text {n}" for n in range(first, last)]
        rows = {"id": [f"r{n}" for n in range(first, last)], "text": texts, "label": [truth(text) for text in texts]}
        pd.DataFrame(rows).to_parquet(folder / f"{table}.parquet")
    fields: dict[str, Any] = {
        "name": "cascade",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet", "dev": "dev.parquet"},
        "requirements": {
            "quality": {"bound": 0.9, "margin": 0.1},
            "usd_per_1k_requests": {"bound": 0.3, "margin": 0.1},
        },
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [
                {"uri": "openai:large", "price": DEAR, "base_url": base_url, "context_tokens": 256},
                {"uri": "openai:small", "price": CHEAP, "base_url": base_url, "context_tokens": 256},
            ]
        },
        "allow_no_test": True,
        "alpha": 0.2,
    }
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(fields | changes))
    return path


def prompt_stage(path: Path) -> tuple[Workspace, Any, Candidate]:
    work = Workspace.of(open_climb.fn(str(path)))
    run_id = evaluate_stage.fn(work.climb.run_id, "prompt", prompt_tries(work.climb.run_id))
    return work, work.client.get_run(run_id), run_record.load_candidate(work.client, run_id)


def test_a_cascade_passes_where_one_model_is_too_weak_and_the_other_too_dear(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    work, run, winner = prompt_stage(case(tmp_path, base_url))
    figures = run.data.metrics
    assert run.data.tags["leastwise.verdict"] == "PASS", run.data.tags["leastwise.reason"]
    assert winner.cascade and (winner.cascade.first.model, winner.model) == ("openai:small", "openai:large")
    assert 0.55 < winner.cascade.below < 0.95
    assert 0.1 < figures["cascade.escalated_share"] < 0.4  # enough of the hard ones for 0.9, not all of them
    assert figures["quality"] > 0.85 and figures["usd_per_1k_requests"] < 0.4
    tries = work.client.search_runs([work.climb.experiment_id], "tags.`leastwise.kind` = 'try'")
    assert any("openai:small → openai:large" in each.info.run_name for each in tries)
    assert not any("openai:large unconstrained" in each.info.run_name for each in tries), (
        "the dear one was not tried alone"
    )
    assert audit.fn("cascade").outcome == "agrees"
    before = server.asked.copy()
    prompt_stage(case(tmp_path, base_url))
    assert server.asked == before


def test_a_first_that_tells_no_confidence_is_not_offered(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.tells = False
    _, run, winner = prompt_stage(case(tmp_path, base_url))
    assert winner.cascade is None and "cascade.escalated_share" not in run.data.metrics


def test_a_first_that_is_always_unsure_is_not_cheaper_and_not_offered(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.hard = 10
    _, _, winner = prompt_stage(case(tmp_path, base_url))
    assert winner.cascade is None


def test_a_first_that_is_good_enough_alone_needs_no_other(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.hard = 0
    path = case(tmp_path, base_url)
    work = Workspace.of(open_climb.fn(str(path)))
    first, _, offered = prompt_tries(work.climb.run_id)[:3]
    assert isinstance(offered, cascade_offer.Offer) and offered.first == first
    assert cascade_offer.taken_up(work, offered) is None


def test_a_cascade_behind_a_response_cache_is_asked_again_past_it(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    work, _, winner = prompt_stage(case(tmp_path, base_url, consistency={"rows": 10}))
    cached = winner.model_copy(update={"cache": winner.cache.model_copy(update={"exact": True})})
    before = Counter(server.asked)
    with answering.open_answerer(work, cached) as answerer:
        asked = ask_again(work.use_case, answerer, work.gate_rows("gate")[0], None)
    assert (asked.figures["consistency.same"], asked.figures["consistency.same.n"]) == (1.0, 10)
    assert server.asked == before, "the climb has asked it again already; those answers are kept too"


def test_without_a_bound_on_cost_there_is_no_reason_for_a_cascade(home: Path, tmp_path: Path, models: Any):
    _, base_url = models
    _, run, winner = prompt_stage(case(tmp_path, base_url, requirements={"quality": {"bound": 0.9, "margin": 0.1}}))
    assert winner.cascade is None and run.data.tags["leastwise.verdict"] == "PASS" and winner.model == "openai:large"


class Toy:
    """Answers with the id and a confidence from the column `sure`; `lost` rows bring nothing."""

    price = None
    usd_worst_case = fixed_usd_per_request = 1.0

    def __init__(self, name: str, ms: float | None, lost: frozenset[str] = frozenset()) -> None:
        self.name, self.ms, self.lost = name, ms, lost

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        made = zip(rows["id"], rows["sure"], strict=True)
        return [
            Answer(None, None, 0.0, error="cut")
            if row in self.lost
            else Answer(f"{self.name} {row}", self.ms, 1.0, 10, 5, 1, confidence=sure)
            for row, sure in made
        ]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        return [replace(answer, text=answer.text and f"{answer.text} again") for answer in self.answer(rows)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        return [7.0] * len(rows)


def test_what_escalates_costs_both_takes_both_times_and_is_counted() -> None:
    rows = pd.DataFrame({"id": ["a", "b", "c", "d"], "sure": [0.9, 0.2, 0.9, 0.1]})
    cascade = CascadeAnswerer(Toy("first", 10.0, frozenset({"c"})), Toy("then", 20.0, frozenset({"d"})), 0.5)
    answers = cascade.answer(rows)
    assert [a.text for a in answers] == ["first a", "then b", "then c", None], (
        "lost by the first escalates, by the other is lost"
    )
    assert (answers[1].usd, answers[1].latency_ms, answers[1].input_tokens, answers[1].escalated) == (
        2.0,
        30.0,
        20,
        True,
    )
    assert cascade.figures() == {"cascade.escalated_share": 0.75, "cascade.below": 0.5}
    assert [a.text for a in cascade.again(rows)] == ["first a again", "then b again", "then c again", None]
    assert cascade.figures()["cascade.escalated_share"] == 0.75, "asking again is no traffic"
    assert (cascade.usd_worst_case, cascade.fixed_usd_per_request) == (2.0, 2.0)
    assert cascade.timed(rows, answers) == [7.0, 14.0, 14.0, 14.0]
