"""An instruction rewritten at the end of a search: only with headroom, adopted only if surely better, paid and kept
like all else. A small server over HTTP answers by the instruction it is given, and reflects as it is told to.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerer import Outage
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.reply import Reply
from leastwise.errors import BadInput
from leastwise.evaluating.search.dev_answers import DevAnswers
from leastwise.evaluating.search.fitness import FITNESS_ROWS
from leastwise.evaluating.search.reflection.copied import Copied
from leastwise.evaluating.search.reflection.parts import parts_of
from leastwise.evaluating.search.report import SearchReport
from leastwise.evaluating.search.search import SALT, search
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate
from leastwise.rows.gate_rows import seeded
from leastwise.stores.budget import Budget
from leastwise.stores.caps import BudgetExceeded
from tasks.prompt import prompt_candidates, prompt_tries
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 1.0, "output": 1.0, "illustrative": True}
LABELS = ["red", "green", "blue", "grey"]
ROWS, DEV = 40, 160
RULE = "Name the colour by the last digit of the number."
USD = 5.0


def label_of(number: int) -> str:
    return LABELS[(number // 3) % 4]


@dataclass
class Models:
    """Knows its rows by how it is asked: right on 50% in chat as written, other rows where it is held to a schema, and
    on nine of ten where the instruction has the RULE. The reflecting one replies what `reflect` makes of its calls.
    """

    reflect: Callable[[int], str] = lambda call: f"```\n{RULE} (attempt {min(call, 2)})\n```"
    knows_elsewhere: bool = True
    with_rule: int = 9
    calls: list[dict[str, Any]] = field(default_factory=list)
    reflections: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        told = asked["messages"][-1]["content"]
        if asked["model"] == "wise":
            self.reflections.append(told)
            return chat_completion("wise", self.reflect(len(self.reflections)), len(told) // 4, 40)
        self.calls.append(asked)
        number, system = int(told.split()[-1]), str(asked["messages"][0]["content"])
        is_held = "response_format" in asked
        if RULE in system:
            is_right = number % 10 < self.with_rule
        else:
            is_right = number % 2 == (1 if is_held and self.knows_elsewhere else 0)
        label = label_of(number) if is_right else LABELS[(LABELS.index(label_of(number)) + 1 + number % 3) % 4]
        return chat_completion("m", json.dumps({"label": label}) if is_held else label, 40, 2)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Models, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
    server = Models()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str, usd: float = USD, dev: int = DEV, **changes: Any) -> str:
    for name, (first, last) in {"train": (0, 40), "dev": (1000, 1000 + dev), "gate": (5000, 5200)}.items():
        numbers = range(first, last)
        rows: dict[str, Any] = {"id": [f"r{n}" for n in numbers]}
        rows["text"] = [f"{name} text of a fair length to be told from any other, number {n}" for n in numbers]
        pd.DataFrame(rows | {"label": [label_of(n) for n in numbers]}).to_parquet(folder / f"{name}.parquet")
    given = {"base_url": base_url, "context_tokens": 4000, "price": PRICE}
    fields: dict[str, Any] = {
        "name": "reflected",
        "task": {"instruction": "Which colour?", "labels": LABELS},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate")},
        "requirements": {"quality": {"bound": 0.97, "margin": 0.02}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 8},
        "models": {"candidates": [{"uri": "openai:m", **given}, {"uri": "openai:wise", **given}]},
        "allow_no_test": True,
        "retrieval": {"fixed_examples": 0},
        "search": {"rows": ROWS, "usd": usd, "reflect": "openai:wise"},
    }
    return case_file(folder, fields | changes)


def found(path: str, limit: float = USD) -> tuple[Workspace, SearchReport]:
    work = opened(path)
    start = next(each for each in prompt_candidates(work) if each.model == "openai:m")
    return work, search(work, "prompt", start, limit)


def system_of(report: SearchReport) -> str:
    assert report.candidate is not None and report.candidate.prompt is not None
    return report.candidate.prompt.system


def test_an_instruction_that_is_surely_better_is_adopted_and_the_record_says_what_it_gained(
    home: Path, tmp_path: Path, models: Any
) -> None:
    work, report = found(case(tmp_path, models[1]))
    reflected = report.reflection
    assert reflected is not None and reflected.is_adopted and reflected.lower > 0
    assert RULE in system_of(report) and "Answer with exactly one of: red, green, blue, grey." in system_of(report)
    step = report.steps[-1]
    assert (step.axis, step.is_taken) == ("reflection", True) and step.gain == pytest.approx(reflected.gain)
    assert "surely better" in report.words(0.97) and "by openai:wise" in report.words(0.97)
    by_purpose = work.budget.spent_by_purpose_of("prompt")
    assert by_purpose["search"] == pytest.approx(report.usd) and set(by_purpose) == {"search"}
    assert reflected.calls == len(models[0].reflections) > 0


def test_learning_choosing_and_confirming_rows_are_disjoint_and_no_gate_row_is_read(
    home: Path, tmp_path: Path, models: Any
) -> None:
    work = found(case(tmp_path, models[1]))[0]
    parts = parts_of(seeded(work.tables.need("dev"), SALT), ROWS)
    ids = [set(each["id"]) for each in (parts.learn, parts.choose, parts.confirm)]
    assert [len(each) for each in ids] == [40, 40, 80]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    shown = {int(number) for told in models[0].reflections for number in re.findall(r"number (\d+)", told)}
    assert {f"r{number}" for number in shown} <= ids[0] and shown
    new = {int(call["messages"][-1]["content"].split()[-1]) for call in models[0].calls if RULE in str(call)}
    assert {f"r{number}" for number in new} & ids[2]
    assert not any("gate text" in str(call) for call in models[0].calls)


def test_a_worse_or_equal_instruction_leaves_the_old_one(home: Path, tmp_path: Path, models: Any) -> None:
    models[0].with_rule = 4
    report = found(case(tmp_path, models[1]))[1]
    assert report.reflection is not None and not report.reflection.is_adopted and report.reflection.proposed > 0
    assert RULE not in system_of(report)
    assert not any(step.axis == "reflection" and step.is_taken for step in report.steps)


def test_without_headroom_the_reflecting_model_is_never_asked(home: Path, tmp_path: Path, models: Any) -> None:
    models[0].knows_elsewhere = False
    report = found(case(tmp_path, models[1]))[1]
    assert models[0].reflections == []
    assert report.reflection is not None and "no headroom" in report.reflection.why_not
    assert "no headroom" in report.words(None) and "reflection" in {each.axis for each in report.not_tried}


def test_without_a_model_named_nothing_reflects_and_the_question_is_as_before(
    home: Path, tmp_path: Path, models: Any
) -> None:
    (tmp_path / "plain").mkdir()
    plain = case(tmp_path / "plain", models[1], search={"rows": ROWS, "usd": USD})
    named = case(tmp_path, models[1])
    assert opened(plain).question.key != opened(named).question.key
    assert "reflect" not in opened(plain).use_case.search.model_dump()
    report = found(plain)[1]
    assert report.reflection is None and models[0].reflections == []
    assert "search.reflect names no model" in next(each.why for each in report.not_tried if each.axis == "reflection")


def test_a_rerun_asks_nothing_and_comes_to_the_same_though_the_kept_search_is_gone(
    home: Path, tmp_path: Path, models: Any
) -> None:
    path = case(tmp_path, models[1])
    work, first = found(path)
    asked, reflected = len(models[0].calls), len(models[0].reflections)
    shutil.rmtree(work.home / "searches")
    again = found(path)[1]
    assert again == first
    assert (len(models[0].calls), len(models[0].reflections)) == (asked, reflected)


@pytest.mark.parametrize("dies_at", [100, 150, 190])
def test_a_killed_reflection_goes_on_and_buys_nothing_twice(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    path, ask = case(tmp_path, models[1]), DevAnswers.ask_rows

    def dies(self: DevAnswers, candidate: Candidate, rows: pd.DataFrame, *more: Any) -> list[Reply]:
        if len(models[0].calls) >= dies_at:
            raise KeyboardInterrupt
        return ask(self, candidate, rows, *more)

    monkeypatch.setattr(DevAnswers, "ask_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        found(path)
    bought = len(models[0].calls)
    monkeypatch.setattr(DevAnswers, "ask_rows", ask)
    report = found(path)[1]
    assert report.reflection is not None and report.reflection.is_adopted
    texts = [json.dumps(call, sort_keys=True) for call in models[0].calls]
    assert len(set(texts)) + FITNESS_ROWS == len(texts) > bought >= dies_at
    assert len(set(models[0].reflections)) == len(models[0].reflections)


@pytest.mark.parametrize("cap_usd", [0.0075, 0.0105])
def test_a_cap_of_the_climb_stops_it_at_once_and_with_more_money_it_goes_on_where_it_was(
    home: Path, tmp_path: Path, models: Any, cap_usd: float
) -> None:
    work = opened(case(tmp_path, models[1]))
    poor = work.use_case.model_copy(update={"budget_usd": cap_usd})
    capped = replace(work, budget=Budget(work.budget.ledger, work.run.id, poor))
    with pytest.raises(BudgetExceeded):
        search(capped, "prompt", prompt_candidates(work)[0], USD)
    bought, reflected = len(models[0].calls), len(models[0].reflections)
    assert bought > 80 and work.budget.usd_spent <= cap_usd
    report = found(case(tmp_path, models[1]))[1]
    assert report.reflection is not None and report.reflection.is_adopted
    texts = [json.dumps(call, sort_keys=True) for call in models[0].calls] + models[0].reflections
    assert len(set(texts)) + FITNESS_ROWS == len(texts) > bought + reflected


@pytest.mark.parametrize(("share", "reflects"), [(0.35, False), (0.6, False), (1.55, True)])
def test_it_never_costs_more_than_the_search_may_and_is_last_to_be_tried(
    home: Path, tmp_path: Path, models: Any, share: float, reflects: bool
) -> None:
    limit = share * found(case(tmp_path, models[1]))[1].usd
    report = found(case(tmp_path, models[1], usd=limit), limit)[1]
    assert report.usd <= limit
    words = report.words(0.97)
    assert f"not exhausted within ${limit:g}" in words and "reflection instruction" in words
    assert "trying it costs at most $" in words
    assert (report.reflection is not None and report.reflection.proposed > 0) == reflects
    assert RULE not in system_of(report) or (report.reflection is not None and report.reflection.is_adopted)


def test_a_model_that_is_lost_while_it_reflects_is_an_outage_and_asked_once_at_a_time(
    home: Path, tmp_path: Path, models: Any
) -> None:
    def breaks(call: int) -> str:
        raise web.HTTPServiceUnavailable

    models[0].reflect = breaks
    with pytest.raises(Outage, match="run again to resume"):
        found(case(tmp_path, models[1]))
    assert len(models[0].reflections) <= 10  # the retries of one request, not those of a dozen


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("I cannot help with that.", "0 instructions between ```"),
        ("```\nWhich colour?\n```", "the same instruction"),
        ("```\n" + "very " * 260 + "\n```", "260 words"),
        (f"```\n{RULE} For text of a fair length to be told from any other it is red.\n```", "copies a text"),
        ("```\n" + "很" * 5000 + "\n```", "takes more than"),
    ],
)
def test_what_cannot_be_taken_is_rejected_with_the_reason_and_ends_it_after_three_in_a_row(
    home: Path, tmp_path: Path, models: Any, says: str, why: str
) -> None:
    models[0].reflect = lambda call: says
    report = found(case(tmp_path, models[1]))[1]
    reflected = report.reflection
    assert reflected is not None and len(models[0].reflections) == 3
    assert len(reflected.rejected) == 3 and why in reflected.rejected[0]
    assert "nothing that can be used 3 times in a row" in report.words(None) and "Which colour?" in system_of(report)
    assert not any(RULE in str(call) for call in models[0].calls)


def test_copies_are_told_by_eight_words_in_a_row_or_a_whole_shorter_text() -> None:
    copied = Copied(["The quick brown fox jumps over the lazy dog today.", "Fix the printer please", "Yes please"])
    assert copied.first("Say: the QUICK brown fox, jumps over the lazy dog!") != ""
    assert copied.first("the quick brown fox jumps over the cat") == ""
    assert copied.first("It is hardware if they say fix the printer please.") == "fix the printer please"
    assert copied.first("Answer yes please.") == ""
    assert copied.first("fix the printer please", before="Fix the printer please, or label it") == ""
    assert Copied(["我们今天在公园里看见一只狗"]).first("规则:我们今天在公园里看见一只狗") != ""


def test_a_model_the_use_case_does_not_allow_is_refused_before_anything_is_asked(
    home: Path, tmp_path: Path, models: Any
) -> None:
    other = case(tmp_path, models[1], search={"rows": ROWS, "usd": 1.0, "reflect": "openai:other"})
    given = {"context_tokens": 4000, "price": PRICE}
    inside = {"uri": "openai:m", "venue": "self_host", "base_url": models[1], **given}
    outside = {"uri": "openai:wise", "base_url": "https://wise.example/v1", "key_variable": "none", **given}
    (tmp_path / "away").mkdir()
    away = case(
        tmp_path / "away",
        models[1],
        requirements={"quality": {"bound": 0.97, "margin": 0.02}, "residency": {"venues": ["self_host"]}},
        models={"candidates": [inside, outside]},
    )
    (tmp_path / "off").mkdir()
    off = case(tmp_path / "off", models[1], search={"rows": 0, "reflect": "openai:wise"})
    for path, words in ((other, "none of models.candidates"), (away, "residency does not"), (off, "never be asked")):
        with pytest.raises(BadInput, match=f"search.reflect: .*{words}"):
            opened(path)
    assert models[0].calls == [] and models[0].reflections == []


def test_without_the_package_it_is_refused_before_anything_is_asked(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.models.catalogue.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'leastwise\[reflect\]'"):
        opened(case(tmp_path, models[1]))
    assert models[0].calls == []


def test_a_stage_logs_the_reflection_and_judges_what_it_came_to(home: Path, tmp_path: Path, models: Any) -> None:
    work = opened(case(tmp_path, models[1], usd=2.0))
    result = evaluate_stage(work, "prompt", [each for each in prompt_tries(work) if "openai:m" in str(each)])
    prompt = result.run.candidate().prompt
    assert prompt is not None and RULE in prompt.system
    note = result.run.tag("mlflow.note.content")
    assert "| reflection | instruction by openai:wise |" in note and "surely better" in result.verdict.reason
