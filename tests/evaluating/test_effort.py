"""How much a model thinks, searched on dev within what the use case allows it: in the cap, the reservation, cost and
latency; an effort that is dropped is an error with the setting to change. A server that counts its thoughts answers.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.served import requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.habits import efforts_of, with_known_reasoning
from leastwise.endpoints.request import most_usage
from leastwise.errors import BadInput
from leastwise.evaluating.search.search import search
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.use_case.model import Model
from tasks.prompt import prompt_candidates, prompt_tries
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "output": 10.0, "illustrative": True}
THOUGHT = {"none": 0, "low": 200, "medium": 900, "high": 3000}
ROWS = 40


@dataclass
class Thinker:
    """Right on nine of ten texts from the effort it `needs` on, else on half; where it `refuses` every effort it thinks
    for `by_itself` tokens.
    """

    needs: str = "low"
    refuses: bool = False
    by_itself: int = 0
    slow_s: dict[str, float] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls.append(asked)
        effort = asked.get("reasoning_effort")
        if self.refuses and effort:
            words = "Unrecognized request argument supplied: reasoning_effort"
            return web.json_response({"error": {"message": words, "type": "invalid_request_error"}}, status=400)
        thought = self.by_itself if effort is None else THOUGHT[effort]
        await asyncio.sleep(self.slow_s.get(effort or "", 0.0))
        number = int(asked["messages"][-1]["content"].split()[-1])
        knows = self.refuses or THOUGHT[effort or "medium"] >= THOUGHT[self.needs]
        is_right = number % 10 != 0 if knows else number % 2 == 0
        label = ["no", "yes"][(number // 3 + (not is_right)) % 2]
        told = chat_completion("m", label, 40, 2 + thought)
        body = json.loads(told.text or "")
        body["usage"]["completion_tokens_details"] = {"reasoning_tokens": thought}
        return web.json_response(body)


@pytest.fixture
def thinker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Thinker, str]]:
    monkeypatch.setenv("THEIR_KEY", "none")
    server = Thinker()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str, uri: str = "openai:gpt-6-luna", reasoning: Any = "medium", **fields: Any) -> str:
    for name, first in {"train": 0, "dev": 1000, "gate": 2000}.items():
        numbers = range(first, first + 120)
        rows = {"id": [f"r{n}" for n in numbers], "text": [f"{name} text {n}" for n in numbers]}
        rows["label"] = [["no", "yes"][(n // 3) % 2] for n in numbers]
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    model = {"uri": uri, "base_url": base_url, "context_tokens": 2000, "price": PRICE, "key_variable": "THEIR_KEY"}
    model |= {"habits": {"json_schema": False}} | ({"reasoning": reasoning} if reasoning else {})
    written: dict[str, Any] = {
        "name": "thought",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate")},
        "requirements": {"quality": {"bound": 0.99, "margin": 0.02}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 8, "concurrency": 16},
        "models": {"candidates": [model]},
        "retrieval": {"fixed_examples": 0},
        "budget_usd": 100,
        "budget_usd_per_month": 1000,
        "allow_no_test": True,
        "search": {"rows": ROWS, "usd": 20.0},
    }
    return case_file(folder, written | fields)


def stage(path: str) -> tuple[Workspace, StageResult]:
    work = opened(path)
    return work, evaluate_stage(work, "prompt", prompt_tries(work))


def efforts(calls: list[dict[str, Any]], table: str) -> set[str | None]:
    return {each.get("reasoning_effort") for each in calls if f"{table} text" in str(each["messages"])}


@pytest.mark.parametrize(("needs", "taken"), [("low", "low"), ("none", "none"), ("medium", None)])
def test_the_least_effort_that_is_as_good_goes_to_the_gate_with_its_own_cap_and_cost(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str], needs: str, taken: str | None
) -> None:
    thinker[0].needs = needs
    work, result = stage(case(tmp_path, thinker[1]))
    candidate, calls = result.run.candidate(), thinker[0].calls
    assert candidate.prompt is not None and candidate.prompt.reasoning == taken
    assert efforts(calls, "dev") == {"none", "low", "medium"}
    assert efforts(calls, "gate") == {taken or "medium"}
    caps = {each.get("reasoning_effort"): each["max_completion_tokens"] for each in calls}
    assert caps == {"none": 8, "low": 8 + 1024, "medium": 8 + 4096}
    assert f"| reasoning | reasoning {taken or 'medium'} |" in result.run.tag("mlflow.note.content")
    asked = sum("gate text" in str(each["messages"]) for each in calls)
    usd = asked * (40 + 10 * (2 + THOUGHT[taken or "medium"])) / 1e6
    assert work.budget.spent_by_purpose_of("prompt")["evaluation"] == pytest.approx(usd)


def test_an_effort_is_in_what_is_reserved_and_in_the_worst_case_of_a_request(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str]
) -> None:
    work = opened(case(tmp_path, thinker[1]))
    start = prompt_candidates(work)[0]
    assert start.prompt is not None
    prompts = {effort: start.prompt.model_copy(update={"reasoning": effort}) for effort in (None, "low", "none")}
    asked = {effort: start.model_copy(update={"prompt": prompt}) for effort, prompt in prompts.items()}
    most = {effort: most_usage(requests_of(work, each, ["r"], ["a text"])[0]) for effort, each in asked.items()}
    assert [most[effort].output_tokens for effort in (None, "low", "none")] == [8 + 4096, 8 + 1024, 8]
    worst = {effort: work.catalogue.worst_case_usd(each) for effort, each in asked.items()}
    assert worst[None] - worst["low"] == pytest.approx(10 * 3072 / 1e6)
    assert worst["low"] - worst["none"] == pytest.approx(10 * 1024 / 1e6)


def test_no_effort_is_tried_beyond_what_the_use_case_allows_the_model(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str]
) -> None:
    work = opened(case(tmp_path, thinker[1], reasoning="low"))
    search(work, "prompt", prompt_candidates(work)[0], 20.0)
    assert efforts(thinker[0].calls, "dev") == {"none", "low"}


def test_an_effort_whose_answers_mostly_take_longer_than_the_slowest_may_is_left_out_aloud(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str]
) -> None:
    thinker[0].needs, thinker[0].slow_s = "medium", {"medium": 4.0}
    limits = {"quality": {"bound": 0.99, "margin": 0.02}, "p95_latency_ms": {"bound": 2000, "margin": 500}}
    work = opened(case(tmp_path, thinker[1], requirements=limits, search={"rows": 26, "usd": 20.0}))
    found = search(work, "prompt", prompt_candidates(work)[0], 20.0)
    left = {each.variant: each.why for each in found.not_tried if each.axis == "reasoning"}
    assert set(left) == {"reasoning medium"} and "at most 2,500 ms may" in left["reasoning medium"]
    assert found.candidate is not None and found.candidate.prompt is not None
    assert found.candidate.prompt.reasoning in ("none", "low")


def test_a_model_that_refuses_an_effort_and_does_not_think_is_an_error_that_says_what_to_remove(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str]
) -> None:
    thinker[0].refuses = True
    for _ in range(2):  # a rerun, of kept answers, says the same
        result = stage(case(tmp_path, thinker[1], uri="openai:in-house", reasoning="low"))[1]
        assert result.verdict.outcome == "ERROR"
        assert "remove reasoning from the model" in result.verdict.reason
    assert not efforts(thinker[0].calls, "gate")


def test_a_model_that_refuses_an_effort_and_thinks_by_itself_keeps_its_budget(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str]
) -> None:
    thinker[0].refuses, thinker[0].by_itself = True, 300
    result = stage(case(tmp_path, thinker[1], uri="openai:in-house", reasoning="low"))[1]
    assert result.verdict.outcome == "FAIL"
    assert "not tried: reasoning, less: this model is not known to take an effort" in result.run.tag(
        "mlflow.note.content"
    )


OFFERED: list[tuple[str, Any, tuple[str, ...]]] = [
    ("openai:gpt-6-luna", "medium", ("none", "low", "medium")),
    ("openai:gpt-5", "high", ("low", "medium", "high")),  # always thinks
    ("anthropic:claude-haiku-4-5", "low", ("none", "low")),
    ("google:gemini-2.5-flash", 5000, ("none", "low", "medium")),
    ("openai:gpt-4o", None, ()),
    ("openai:gpt-4.1", None, ()),
    ("openai:nobody-knows", "low", ()),
    ("ollama:qwen3:8b", "low", ()),
    ("vllm:org/model", "low", ()),
    ("openrouter:meta-llama/llama-3.3-70b-instruct", "low", ()),
    ("openai-decisions:gpt-6-luna", None, ()),
    ("hf://org/model", "low", ()),
]


@pytest.mark.parametrize(("uri", "reasoning", "offered"), OFFERED)
def test_only_efforts_that_the_provider_layer_knows_to_be_taken_are_offered(uri: str, reasoning: Any, offered: Any):
    assert efforts_of(Model(uri=uri, reasoning=reasoning)) == offered


def test_a_person_who_says_that_no_effort_is_taken_is_offered_none():
    model = Model.model_validate(
        {"uri": "openai:gpt-6-luna", "reasoning": "low", "habits": {"reasoning_effort": False}}
    )
    assert efforts_of(model) == ()


@pytest.mark.parametrize(
    "uri", ["openai:gpt-4o", "openai:gpt-4.1-mini", "google:gemma-3-27b-it", "bedrock:amazon.nova-lite-v1:0"]
)
@pytest.mark.parametrize("reasoning", ["low", 2048])
def test_an_effort_that_would_be_dropped_without_a_word_is_refused_before_anything_is_asked(
    home: Path, tmp_path: Path, thinker: tuple[Thinker, str], uri: str, reasoning: Any
) -> None:
    model = Model(uri=uri, reasoning=reasoning)
    base = opened(case(tmp_path, thinker[1])).use_case
    dropping = base.model_copy(update={"models": base.models.model_copy(update={"candidates": (model,)})})
    with pytest.raises(BadInput, match=rf"{uri} takes no effort .*reasoning: {reasoning} .*remove reasoning"):
        with_known_reasoning(dropping)


def test_a_candidate_without_an_effort_of_its_own_keeps_its_key_and_nothing_is_thought_where_nothing_is_written():
    plain = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Say."))
    assert "reasoning" not in plain.model_dump()["prompt"]
    assert plain.key == "e7503d775541ee58"
    told = plain.model_copy(update={"prompt": Prompt(system="Say.", reasoning="low")})
    assert told.key != plain.key and told.prompt is not None and told.prompt.how == "unconstrained, reasoning low"
    with pytest.raises(ValueError, match="nothing is thought where nothing is written"):
        Prompt(system="Say.", reading="decide", reasoning="low")
