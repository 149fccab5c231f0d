"""A cascade is offered where it is cheaper and holds quality, is judged like any candidate, and says what it escalates.

Two models behind one small server over HTTP: the cheap one knows when it does not know. The rest is real.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.cascade_offer import CascadeOffer
from leastwise.evaluating.samples.consistency import ask_again
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate
from leastwise.record.stage_run import StageRun
from tasks.audit import audit_verdicts
from tasks.prompt import prompt_tries
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

CHEAP = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
DEAR = {"input": 5.0, "cached": 0.5, "output": 20.0, "illustrative": True}


def mixed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


class Models:
    """`small` is right on seven of ten texts and sure of them; `large` is right on all. `tells` its log-
    probabilities or not.
    """

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


def case(folder: Path, base_url: str, **changes: Any) -> str:
    """Wanted: quality 0.9 within 0.1 at most $0.30 per 1,000: the small model is not good enough, the large
    one too dear.
    """
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
    return case_file(folder, fields | changes)


def prompt_stage(path: str) -> tuple[Workspace, StageRun, Candidate]:
    work = opened(path)
    run = evaluate_stage(work, "prompt", prompt_tries(work)).run
    return work, run, run.candidate()


def test_a_cascade_passes_where_one_model_is_too_weak_and_the_other_too_dear(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    _, run, winner = prompt_stage(case(tmp_path, base_url))
    figures = run.figures
    assert run.tag("leastwise.verdict") == "PASS", run.tag("leastwise.reason")
    assert winner.cascade and (winner.cascade.first.model, winner.model) == ("openai:small", "openai:large")
    assert 0.55 < winner.cascade.below < 0.95
    assert 0.1 < figures["cascade.escalated_share"] < 0.4  # enough of the hard ones for 0.9, not all of them
    assert figures["quality"] > 0.85 and figures["usd_per_1k_requests"] < 0.4
    tries = run.children()
    assert any("openai:small → openai:large" in each.info.run_name for each in tries)
    assert not any("openai:large unconstrained" in each.info.run_name for each in tries), (
        "the dear one was not tried alone"
    )
    assert audit_verdicts.fn("cascade").outcome == "agrees"
    before = server.asked.copy()
    prompt_stage(case(tmp_path, base_url))
    assert server.asked == before


def test_a_first_that_tells_no_confidence_is_not_offered(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.tells = False
    _, run, winner = prompt_stage(case(tmp_path, base_url))
    assert winner.cascade is None and "cascade.escalated_share" not in run.figures


def test_a_first_that_is_always_unsure_is_not_cheaper_and_not_offered(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.hard = 10
    _, _, winner = prompt_stage(case(tmp_path, base_url))
    assert winner.cascade is None


def test_a_first_that_is_good_enough_alone_needs_no_other(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    server.hard = 0
    path = case(tmp_path, base_url)
    work = opened(path)
    first, _, offered = prompt_tries(work)[:3]
    assert isinstance(offered, CascadeOffer) and offered.first == first
    assert offered.take_up(work, work.run.open_stage("prompt", "key"), []) is None


def test_a_cascade_behind_a_response_cache_is_asked_again_past_it(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    work, _, winner = prompt_stage(case(tmp_path, base_url, consistency={"rows": 10}))
    cached = winner.model_copy(update={"cache": winner.cache.model_copy(update={"exact": True})})
    before = Counter(server.asked)
    with open_answerer(work, cached) as answerer:
        asked = ask_again(work.use_case, answerer, work.question.gate.rows, None)
    assert (asked.figures["consistency.same"], asked.figures["consistency.same.n"]) == (1.0, 10)
    assert server.asked == before, "the climb has asked it again already; those answers are kept too"


def test_without_a_bound_on_cost_there_is_no_reason_for_a_cascade(home: Path, tmp_path: Path, models: Any):
    _, base_url = models
    _, run, winner = prompt_stage(case(tmp_path, base_url, requirements={"quality": {"bound": 0.9, "margin": 0.1}}))
    assert winner.cascade is None and run.tag("leastwise.verdict") == "PASS" and winner.model == "openai:large"
